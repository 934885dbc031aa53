"""API keys: named, revocable, with roles and rate limits, stored as hashes.

A key has 256 random bits, so its plain SHA-256 cannot be reversed by search. Keys are stored as
JSON, ``{"keys": [{"name": "ann", "sha256": "…", "roles": ["predict"]}]}``, in the file that
``CV_FACTORY_API_KEYS_FILE`` names, which is reloaded when it changes, or, as a stack's secret
provides them, in ``CV_FACTORY_API_KEYS`` itself.
"""

import hashlib
import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, ValidationError

from cv_factory.artifacts.files import canonical_json, file_lock, write_atomic
from cv_factory.config.problems import describe_error
from cv_factory.config.section import Section
from cv_factory.errors import ConfigError
from cv_factory.serving.auth.principal import Principal, Role
from cv_factory.serving.logging.json_lines import log_event

FILE_VARIABLE = "CV_FACTORY_API_KEYS_FILE"
TEXT_VARIABLE = "CV_FACTORY_API_KEYS"
#: Lets secret scanners recognize a leaked key.
_PREFIX = "cvf_"
_RELOAD_INTERVAL_S = 1.0


class StoredKey(Section):
    """One API key without its secret."""

    name: str = Field(min_length=1, max_length=80)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    roles: list[Role] = Field(["predict"], min_length=1)
    images_per_second: float | None = Field(None, gt=0.0, description="in place of rate.per_key")
    revoked: bool = False


class KeyFile(Section):
    """Schema of a file of API keys."""

    keys: list[StoredKey] = Field([], max_length=100_000)


class ApiKeyStore:
    """Looks up the principal of an API key."""

    def __init__(self, file: Path | None = None, text: str | None = None) -> None:
        """Read the keys from a file, from JSON text, or from both.

        Raises:
            ConfigError: They cannot be read, or there is no valid key.
        """
        self._file = file
        self._last_check = time.monotonic()
        self._loaded_version = _file_version(file)
        self._text_keys = _by_hash(_parse(text, TEXT_VARIABLE)) if text else {}
        self._by_hash = self._text_keys | (_by_hash(read_keys(file)) if file else {})
        if not self._by_hash:
            raise ConfigError(
                f"{file or TEXT_VARIABLE} has no valid API key, so every request would be refused: "
                "add one with python -m cv_factory.serving.auth add FILE NAME."
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "ApiKeyStore | None":
        """Open the keys that the environment names; None if it names none.

        Raises:
            ConfigError: They cannot be read.
        """
        file, text = environment.get(FILE_VARIABLE), environment.get(TEXT_VARIABLE)
        return cls(Path(file) if file else None, text) if file or text else None

    def find(self, key: str) -> Principal | None:
        """Return the principal of a key; None if the key is unknown or revoked."""
        self._reload_if_changed()
        return self._by_hash.get(hash_key(key))

    def _reload_if_changed(self) -> None:
        """Reload the file if it has changed; a damaged file leaves the keys unchanged."""
        now = time.monotonic()
        if self._file is None or now - self._last_check < _RELOAD_INTERVAL_S:
            return
        self._last_check = now
        version = _file_version(self._file)
        if version == self._loaded_version:
            return
        try:
            self._by_hash = self._text_keys | _by_hash(read_keys(self._file))
        except ConfigError as error:
            detail = f"{error} The service continues with the previous keys."
            log_event("keys-unreadable", logging.ERROR, detail=detail)
        self._loaded_version = version


def hash_key(key: str) -> str:
    """Return the SHA-256 of a key, which is stored in its place."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(file: Path) -> KeyFile:
    """Read a file of API keys.

    Raises:
        ConfigError: It cannot be read or is not valid.
    """
    try:
        return _parse(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the API keys {file}: {error}") from None


def add_key(file: Path, name: str, roles: list[Role], rate: float | None) -> str:
    """Create a key, store its hash, and return the key, which is stored nowhere.

    Raises:
        ConfigError: A valid key has that name, or the file is damaged or cannot be written.
    """
    with _exclusive_access(file):
        keys = read_keys(file).keys if file.exists() else []
        if any(key.name == name and not key.revoked for key in keys):
            raise ConfigError(f"{file} already has a key named {name!r}: revoke it first.")
        key = _PREFIX + secrets.token_urlsafe(32)
        new = StoredKey(name=name, sha256=hash_key(key), roles=roles, images_per_second=rate)
        _write(file, [*keys, new])
    return key


def revoke_key(file: Path, name: str) -> None:
    """Revoke a key.

    Raises:
        ConfigError: No valid key has that name, or the file cannot be written.
    """
    with _exclusive_access(file):
        keys = read_keys(file).keys
        if not any(key.name == name and not key.revoked for key in keys):
            raise ConfigError(f"{file} has no valid key named {name!r}: list the names first.")
        _write(
            file,
            [key.model_copy(update={"revoked": True}) if key.name == name else key for key in keys],
        )


@contextmanager
def _exclusive_access(file: Path) -> Iterator[None]:
    """Lock the keys' file during the block: two processes at once would lose keys or revocations.

    Raises:
        ConfigError: The file cannot be locked or written.
    """
    try:
        with file_lock(file):
            yield
    except OSError as error:
        raise ConfigError(
            f"Cannot write the API keys {file} ({error.strerror}): see that its folder exists, has "
            "space, and that you may write it."
        ) from None


def _write(file: Path, keys: list[StoredKey]) -> None:
    content = canonical_json(KeyFile(keys=keys).model_dump(mode="json"))
    write_atomic(file, content.encode(), mode=0o600)


def _parse(text: str, origin: str) -> KeyFile:
    try:
        return KeyFile.model_validate_json(text)
    except ValidationError as error:
        problems = describe_error(error, show_values=False)
        raise ConfigError(f"{origin} is not a valid file of API keys: {problems}") from None


def _by_hash(file: KeyFile) -> dict[str, Principal]:
    return {
        key.sha256: Principal(key.name, frozenset(key.roles), key.images_per_second)
        for key in file.keys
        if not key.revoked
    }


def _file_version(file: Path | None) -> tuple[int, int] | None:
    """Return modification time (ns) and inode of a file; None if there is none."""
    try:
        status = file.stat() if file else None
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino) if status else None
