"""API keys: named, revocable, with roles and limits of their own, and hashed where they are stored.

A key has 256 random bits, so that a plain SHA-256 of it cannot be searched backwards. They are kept
as JSON, ``{"keys": [{"name": "ann", "sha256": "…", "roles": ["predict"]}]}``, in the file that
``CV_FACTORY_API_KEYS_FILE`` names, which is read again when it changes, and, as a stack's secret
gives them, in ``CV_FACTORY_API_KEYS`` itself.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from cv_factory.artifacts.files import canonical_json, write_atomic
from cv_factory.config.section import Section
from cv_factory.errors import ConfigError
from cv_factory.serving.auth.principal import Principal, Role

FILE_VARIABLE = "CV_FACTORY_API_KEYS_FILE"
TEXT_VARIABLE = "CV_FACTORY_API_KEYS"
#: By which a leaked key is recognized as one of ours.
_PREFIX = "cvf_"
_SECONDS_BETWEEN_LOOKS = 1.0


class StoredKey(Section):
    """What is known of a key."""

    name: str = Field(min_length=1, max_length=80)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    roles: list[Role] = Field(["predict"], min_length=1)
    images_per_second: float | None = Field(None, gt=0.0, description="in place of rate.per_key")
    revoked: bool = False


class KeyFile(Section):
    """The stored keys."""

    keys: list[StoredKey] = Field([], max_length=100_000)


class ApiKeyStore:
    """Finds who a key belongs to."""

    def __init__(self, file: Path | None = None, text: str | None = None) -> None:
        """Read the keys from a file, from text, or from both.

        Raises:
            ConfigError: They cannot be read, or none is there.
        """
        self._file = file
        self._looked = time.monotonic()
        self._stamp = _stamp(file)
        self._fixed = _by_hash(_parse(text, TEXT_VARIABLE)) if text else {}
        self._by_hash = self._fixed | (_by_hash(read_keys(file)) if file else {})
        if not self._by_hash:
            raise ConfigError(
                f"{file or TEXT_VARIABLE} holds no key that is not revoked: nobody could ask."
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "ApiKeyStore | None":
        """Open the keys that the environment names; None where it names none.

        Raises:
            ConfigError: They cannot be read.
        """
        file, text = environment.get(FILE_VARIABLE), environment.get(TEXT_VARIABLE)
        return cls(Path(file) if file else None, text) if file or text else None

    def find(self, key: str) -> Principal | None:
        """Return who a key belongs to; None if nobody, or if it is revoked."""
        self._look_again()
        return self._by_hash.get(hash_key(key))

    def _look_again(self) -> None:
        """Read the file again if it has changed; a damaged one leaves the keys as they were."""
        now = time.monotonic()
        if self._file is None or now - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = now
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        try:
            self._by_hash = self._fixed | _by_hash(read_keys(self._file))
        except ConfigError as error:
            from cv_factory.serving.logging.request_log import say

            say("keys-unreadable", detail=f"{error} The keys stay as they were.")
        self._stamp = stamp


def hash_key(key: str) -> str:
    """Return what is stored in place of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(file: Path) -> KeyFile:
    """Read a file of keys.

    Raises:
        ConfigError: It cannot be read or is not valid.
    """
    try:
        return _parse(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The keys {file} cannot be read: {error}") from None


def add_key(file: Path, name: str, roles: list[Role], rate: float | None) -> str:
    """Make a key, store its hash, and return the key, which nothing else remembers.

    Raises:
        ConfigError: The name is taken, or the file is damaged.
    """
    stored = read_keys(file).keys if file.exists() else []
    if any(key.name == name and not key.revoked for key in stored):
        raise ConfigError(f"{file} has a key named {name!r}; revoke it first.")
    key = _PREFIX + secrets.token_urlsafe(32)
    new = StoredKey(name=name, sha256=hash_key(key), roles=roles, images_per_second=rate)
    _write(file, [*stored, new])
    return key


def revoke_key(file: Path, name: str) -> None:
    """Refuse a key from now on.

    Raises:
        ConfigError: There is none of that name.
    """
    stored = read_keys(file).keys
    if not any(key.name == name and not key.revoked for key in stored):
        raise ConfigError(f"{file} has no key named {name!r} that is not revoked.")
    changed = [
        key.model_copy(update={"revoked": True}) if key.name == name else key for key in stored
    ]
    _write(file, changed)


def _write(file: Path, keys: list[StoredKey]) -> None:
    content = canonical_json(KeyFile(keys=keys).model_dump(mode="json"))
    write_atomic(file, content.encode())
    file.chmod(0o600)


def _parse(text: str, origin: str) -> KeyFile:
    try:
        return KeyFile.model_validate_json(text)
    except ValidationError as error:
        # Not pydantic's own text, which repeats its input.
        places = "; ".join(
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()
        )
        raise ConfigError(f"{origin} holds no API keys as they should be: {places}") from None


def _by_hash(stored: KeyFile) -> dict[str, Principal]:
    return {
        key.sha256: Principal(key.name, frozenset(key.roles), key.images_per_second)
        for key in stored.keys
        if not key.revoked
    }


def _stamp(file: Path | None) -> tuple[int, int] | None:
    """Return what changes when a file changes; None where there is no file."""
    try:
        status = file.stat() if file else None
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino) if status else None
