"""JSON Web Tokens of one issuer, verified with its published keys (JWKS)."""

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

#: Minimum time between two fetches because of unknown key ids.
_MIN_FETCH_INTERVAL_S = 30.0
_MAX_KEY_AGE_S = 3600.0
_MAX_JWKS_BYTES = 2**20


class TokenError(Exception):
    """A token is not valid; the message says why."""


class TokenVerifier:
    """Verifies the tokens of one issuer."""

    def __init__(self, config: JWTConfig) -> None:
        """Fetch the issuer's keys.

        Raises:
            ConfigError: They cannot be fetched.
        """
        self._config = config
        self._lock = threading.Lock()
        self._fetch_time = 0.0
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._fetch()

    def verify(self, token: str) -> Principal:
        """Return the principal of a token. It may wait for the issuer: call it in a thread.

        Raises:
            TokenError: The token is not valid.
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
        return Principal(f"jwt:{claims['sub']}"[:80], _parse_roles(claims.get(config.roles_claim)))

    def _key(self, key_id: str | None) -> jwt.PyJWK:
        age = time.monotonic() - self._fetch_time
        is_unknown = key_id not in self._keys
        if age > _MAX_KEY_AGE_S or (is_unknown and age > _MIN_FETCH_INTERVAL_S):
            with self._lock:
                try:
                    self._fetch()
                except ConfigError as error:
                    raise TokenError(f"cannot fetch the issuer's keys: {error}") from None
        if key_id not in self._keys:
            raise TokenError("the token is signed with a key that its issuer does not publish")
        return self._keys[key_id]

    def _fetch(self) -> None:
        self._fetch_time = time.monotonic()
        location = self._config.jwks
        try:
            content = _download(location) if "://" in location else Path(location).read_bytes()
            keys = jwt.PyJWKSet.from_dict(json.loads(content)).keys
        except (OSError, httpx.HTTPError, ValueError, jwt.PyJWTError, AttributeError) as error:
            raise ConfigError(
                f"access.jwt.jwks: {location} is not a readable JWK set "
                f"({type(error).__name__}: {error})."
            ) from None
        self._keys = {key.key_id: key for key in keys}


def _download(url: str) -> bytes:
    if not url.startswith("https://"):
        raise ConfigError(f"access.jwt.jwks: {url} must be an https:// URL or a path.")
    response = httpx.get(url, timeout=5.0, follow_redirects=False)
    response.raise_for_status()
    if len(response.content) > _MAX_JWKS_BYTES:
        raise ValueError(f"larger than {_MAX_JWKS_BYTES} bytes")
    return response.content


def _parse_roles(claim: Any) -> frozenset[str]:
    """Return the roles of a claim: a list, or text separated by blanks, as in ``scope``."""
    names = claim.split() if isinstance(claim, str) else claim
    if not isinstance(names, list):
        return frozenset()
    return frozenset(name for name in names if name in ("predict", "admin"))
