"""Signed statements of registered versions, one file a version in the stack's artifact store."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from zenml.client import Client
from zenml.models import ModelVersionResponse

from cv_factory.artifacts.files import canonical_json
from registry.provenance.dsse import AttestationError, parse_envelope, sign, verify_envelope
from registry.provenance.signing_key import find_signing_key, get_or_create_signing_key
from registry.provenance.statement import rebuild_statement
from registry.store_files import write_atomic

_FOLDER = "cv_factory_attestations"
_MAX_DIFFERENCES = 5
_ABSENT = object()


class StatementMismatchError(AttestationError):
    """What is stored of a version is not what was signed."""


def sign_statement(model_name: str, number: int, statement: Mapping[str, Any]) -> str:
    """Sign a version's statement and store the envelope; return the id of the key.

    Raises:
        AttestationError: There is no secret store, or it refuses to hold the key.
    """
    envelope = sign(statement, get_or_create_signing_key().private)
    store = Client().active_stack.artifact_store
    write_atomic(store, _path(model_name, number), canonical_json(envelope))
    return str(envelope["signatures"][0]["keyid"])


def load_envelope(model_name: str, number: int) -> object:
    """Load a version's envelope.

    Raises:
        AttestationError: The version is not signed, or the file is damaged.
    """
    store, path = Client().active_stack.artifact_store, _path(model_name, number)
    if not store.exists(path):
        raise AttestationError(
            f"{model_name} version {number} is not signed: {path} does not exist. Sign what is "
            f"stored, after verifying it: python run.py sign {number} --model {model_name}"
        )
    with store.open(path, "rb") as file:
        return parse_envelope(file.read(), path)


def verify_version(
    version: ModelVersionResponse, keys: Sequence[Ed25519PublicKey] | None = None
) -> str:
    """Verify the signature of a version, and that what is stored is what was signed.

    Args:
        version: The version.
        keys: Trusted public keys; those of the secret store by default.

    Returns:
        The id of the key that signed it.

    Raises:
        StatementMismatchError: Its predictor, lineage or parameters were changed since.
        AttestationError: It is not signed, or not with these keys.
        ArtifactError: Its predictor or its run was deleted.
    """
    name = f"{version.model.name} version {version.number}"
    envelope = load_envelope(version.model.name, version.number)
    try:
        statement, signed_with = verify_envelope(
            envelope, _trusted_keys() if keys is None else keys
        )
    except AttestationError as error:
        raise AttestationError(f"{name}: {error}") from None
    differences = list(find_differences(statement, rebuild_statement(version)))
    if differences:
        raise StatementMismatchError(
            f"{name} is not what was signed. Changed since: "
            f"{', '.join(differences[:_MAX_DIFFERENCES])}"
            f"{' …' if len(differences) > _MAX_DIFFERENCES else ''}. "
            f"See: python run.py trace {version.number} --verify --model {version.model.name}"
        )
    return signed_with


def find_differences(signed: object, stored: object, path: str = "") -> Iterator[str]:
    """Yield the dotted paths at which two JSON values differ."""
    if isinstance(signed, dict) and isinstance(stored, dict):
        for key in sorted(signed.keys() | stored.keys()):
            one, other = signed.get(key, _ABSENT), stored.get(key, _ABSENT)
            yield from find_differences(one, other, f"{path}.{key}".lstrip("."))
    elif isinstance(signed, list) and isinstance(stored, list) and len(signed) == len(stored):
        for number, (one, other) in enumerate(zip(signed, stored, strict=True)):
            yield from find_differences(one, other, f"{path}.{_name(one, other, number)}")
    elif signed != stored:
        yield path


def _name(one: object, other: object, number: int) -> str:
    """Return the name that two elements of a list share, or their number."""
    if isinstance(one, dict) and isinstance(other, dict):
        name = one.get("name")
        if name is not None and name == other.get("name"):
            return str(name)
    return str(number)


def _trusted_keys() -> tuple[Ed25519PublicKey, ...]:
    key = find_signing_key()
    if key is None:
        raise AttestationError(
            "There is no signing key in ZenML's secret store any more. Name the public key that "
            "you trust: --public-key FILE"
        )
    return key.trusted


def _path(model_name: str, number: int) -> str:
    root = Client().active_stack.artifact_store.path.rstrip("/")
    return f"{root}/{_FOLDER}/{model_name}/{number}.intoto.json"
