"""The ed25519 key that signs statements: one for all models, in ZenML's secret store.

It is created when the first version is registered. Rotation keeps the public keys that it replaces,
so that earlier signatures still count, unless they are revoked.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from zenml.client import Client
from zenml.exceptions import AuthorizationException, EntityExistsError, IllegalOperationError

from registry.provenance.dsse import (
    AttestationError,
    format_private_key,
    format_public_keys,
    parse_private_key,
    parse_public_keys,
)

#: Name of ZenML's secret; it is public, that is, of every user of the ZenML server.
SECRET = "cv_factory_signing_key"  # noqa: S105 (its name)
_PRIVATE, _RETIRED = "private_key", "retired_public_keys"


@dataclass(frozen=True)
class SigningKey:
    """The key that signs, and the public keys that it replaced."""

    private: Ed25519PrivateKey
    retired: tuple[Ed25519PublicKey, ...] = ()

    @property
    def trusted(self) -> tuple[Ed25519PublicKey, ...]:
        """Public keys whose signatures count, the present one first."""
        return (self.private.public_key(), *self.retired)


def find_signing_key() -> SigningKey | None:
    """Return the signing key, or None if there is none yet.

    Raises:
        AttestationError: The secret store cannot be used, or holds something else.
    """
    with _translate_errors():
        try:
            secret = Client().get_secret(
                SECRET, private=False, allow_partial_name_match=False, allow_partial_id_match=False
            )
        except KeyError:
            return None
    values = secret.secret_values
    if _PRIVATE not in values:
        raise AttestationError(
            f"ZenML's secret {SECRET} has no value {_PRIVATE}. Delete it (zenml secret delete "
            f"{SECRET}), then create a key: python run.py signing-key --rotate"
        )
    return SigningKey(
        parse_private_key(values[_PRIVATE]), parse_public_keys(values.get(_RETIRED, ""))
    )


def get_or_create_signing_key() -> SigningKey:
    """Return the signing key; create it if there is none. Raises as ``find_signing_key``."""
    key = find_signing_key()
    if key is not None:
        return key
    new = Ed25519PrivateKey.generate()
    with _translate_errors():
        try:
            Client().create_secret(SECRET, {_PRIVATE: format_private_key(new)})
            return SigningKey(new)
        except EntityExistsError as error:
            # Another run created it in the meantime.
            key = find_signing_key()
            if key is None:
                raise AttestationError(
                    f"ZenML's secret {SECRET} exists, but cannot be read. Get the permission, or "
                    f"delete it: zenml secret delete {SECRET}"
                ) from error
            return key


def rotate_signing_key(*, revoke: bool) -> SigningKey:
    """Replace the signing key, or create the first.

    Args:
        revoke: No longer trust the keys before, since one was disclosed.

    Raises:
        AttestationError: As ``find_signing_key``.
    """
    old = find_signing_key()
    if old is None:
        return get_or_create_signing_key()
    new = SigningKey(Ed25519PrivateKey.generate(), () if revoke else old.trusted)
    values = {_PRIVATE: format_private_key(new.private), _RETIRED: format_public_keys(new.retired)}
    with _translate_errors():
        Client().update_secret(SECRET, private=False, add_or_update_values=values)
    return new


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except (NotImplementedError, IllegalOperationError, AuthorizationException) as error:
        raise AttestationError(
            f"ZenML's secret store cannot be used ({error}). Enable it on the server, or get the "
            f"permission to read and create secrets: zenml secret get {SECRET}"
        ) from error
