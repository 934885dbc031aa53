"""JSON Web Tokens of one issuer, verified with the keys that it publishes."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import jwt

from cv_factory.config.serving import JWTConfig
from cv_factory.errors import ConfigError
from cv_factory.serving.auth.principal import Principal

_SECONDS_BETWEEN_FETCHES = 30.0
_KEEP_SECONDS = 3600.0
_MAX_JWKS_BYTES = 2**20


class TokenError(Exception):
    """A token that is not accepted; the message is the reason."""


class TokenVerifier:
    """Finds who a token speaks for."""

    def __init__(self, config: JWTConfig) -> None:
        """Read the issuer's keys.

        Raises:
            ConfigError: They cannot be had.
        """
        self._config = config
        self._lock = threading.Lock()
        self._fetched = 0.0
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetch()

    def find(self, token: str) -> Principal:
        """Return who a token speaks for. It may wait for the issuer: call it in a thread.

        Raises:
            TokenError: It is not valid.
        """
        config = self._config
        try:
            key = self._key(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                key.key,
                algorithms=config.algorithms,
                audience=config.audience,
                issuer=config.issuer,
                leeway=config.leeway_seconds,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise TokenError(str(error)) from None
        return Principal(f"jwt:{claims['sub']}"[:80], _roles(claims.get(config.roles_claim)))

    def _key(self, key_id: str | None) -> jwt.PyJWK:
        age = time.monotonic() - self._fetched
        unknown = key_id not in self._keys
        if age > _KEEP_SECONDS or (unknown and age > _SECONDS_BETWEEN_FETCHES):
            with self._lock:
                try:
                    self._fetch()
                except ConfigError as error:
                    raise TokenError(f"the issuer's keys cannot be had: {error}") from None
        if key_id not in self._keys:
            raise TokenError("the token is signed with a key that its issuer does not publish")
        return self._keys[key_id]

    def _fetch(self) -> None:
        self._fetched = time.monotonic()
        place = self._config.jwks
        try:
            content = json.loads(_download(place) if "://" in place else Path(place).read_bytes())
            keys = jwt.PyJWKSet.from_dict(content).keys
        except (OSError, httpx.HTTPError, ValueError, jwt.PyJWTError, AttributeError) as error:
            raise ConfigError(
                f"access.jwt.jwks: {place} gives no JWK set ({type(error).__name__}: {error})."
            ) from None
        self._keys = {key.key_id: key for key in keys}


def _download(url: str) -> bytes:
    if not url.startswith("https://"):
        raise ConfigError(f"access.jwt.jwks: {url} must be https:// or a path.")
    response = httpx.get(url, timeout=5.0, follow_redirects=False)
    response.raise_for_status()
    if len(response.content) > _MAX_JWKS_BYTES:
        raise ValueError("it is too large")
    return response.content


def _roles(claim: Any) -> frozenset[str]:
    """Return the roles that a claim names: a list, or text with blanks, as in ``scope``."""
    names = claim.split() if isinstance(claim, str) else claim
    if not isinstance(names, list):
        return frozenset()
    return frozenset(name for name in names if name in ("predict", "admin"))
