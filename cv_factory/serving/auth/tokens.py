"""JSON Web Tokens of one issuer, verified with its published keys (JWKS)."""

import json
import logging
import math
import threading
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, get_args

import httpx
import jwt

from cv_factory.config.serving import JWTConfig
from cv_factory.errors import ConfigError
from cv_factory.serving.addresses import hide_password
from cv_factory.serving.auth.principal import Principal, Role
from cv_factory.serving.http_client import open_http_client
from cv_factory.serving.logging.json_lines import log_event

#: Minimum time between two fetches because of unknown key ids, or after one that failed.
MIN_FETCH_INTERVAL_S = 30.0
_MAX_KEY_AGE_S = 3600.0
_MAX_JWKS_BYTES = 2**20
#: Type of the key (``kty``) that an algorithm of ``access.jwt.algorithms`` needs, by its start.
_KEY_TYPES = {"RS": "RSA", "ES": "EC", "Ed": "OKP"}


class TokenError(Exception):
    """A token is not valid; the message says why."""


class TokenVerifier:
    """Verifies the tokens of one issuer."""

    def __init__(self, config: JWTConfig, *, is_restart: bool = False) -> None:
        """Fetch the issuer's keys.

        Args:
            config: Section ``access.jwt``.
            is_restart: Whether this process replaces one that has served: then keys that cannot be
                fetched are fetched later.

        Raises:
            ConfigError: They cannot be fetched.
        """
        self._config = config
        self._lock = threading.Lock()
        self._last_success = self._last_attempt = -math.inf
        self._fetch_error = ""
        self._keys: dict[str | None, jwt.PyJWK] = {}
        with suppress(ConfigError) if is_restart else nullcontext():
            self._fetch()

    def verify(self, token: str) -> Principal:
        """Return the principal of a token. It may wait for the issuer: call it in a thread.

        Raises:
            TokenError: The token is not valid.
            ConfigError: It cannot be verified: the issuer's keys cannot be fetched.
        """
        config = self._config
        try:
            header = jwt.get_unverified_header(token)
            key = self._key(header.get("kid"))
            algorithm = str(header.get("alg"))
            if algorithm in config.algorithms and key.key_type != _KEY_TYPES[algorithm[:2]]:
                raise TokenError(f"its algorithm {algorithm} does not fit a key of {key.key_type}")
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
        if key_id not in self._keys:
            with self._lock:
                self._refresh()
        elif self._is_outdated() and self._lock.acquire(blocking=False):
            # Other requests do not wait for it.
            try:
                self._refresh()
            finally:
                self._lock.release()
        if key_id in self._keys:
            return self._keys[key_id]
        if self._fetch_error:
            raise ConfigError(self._fetch_error)
        raise TokenError("the token is signed with a key that its issuer does not publish")

    def _is_outdated(self) -> bool:
        return time.monotonic() - self._last_success > _MAX_KEY_AGE_S

    def _refresh(self) -> None:
        """Fetch the keys unless that was tried a moment ago; keep those of before if it fails."""
        if time.monotonic() - self._last_attempt > MIN_FETCH_INTERVAL_S:
            with suppress(ConfigError):
                self._fetch()

    def _fetch(self) -> None:
        """Replace the keys; those of before stay if that fails.

        Raises:
            ConfigError: They cannot be fetched.
        """
        self._last_attempt = time.monotonic()
        try:
            self._keys = self._read_keys()
        except ConfigError as error:
            self._fetch_error = str(error)
            log_event("issuer-keys-unavailable", logging.ERROR, detail=str(error))
            raise
        self._fetch_error = ""
        self._last_success = self._last_attempt

    def _read_keys(self) -> dict[str | None, jwt.PyJWK]:
        """Return the issuer's published keys by their id.

        Raises:
            ConfigError: They cannot be read.
        """
        location = self._config.jwks
        try:
            content = _download(location) if "://" in location else Path(location).read_bytes()
            keys = jwt.PyJWKSet.from_dict(json.loads(content)).keys
            return {key.key_id: key for key in keys}
        except (
            OSError, httpx.HTTPError, ValueError, RecursionError, jwt.PyJWTError, AttributeError,
            TypeError,
        ) as error:  # fmt: skip
            reason = f"{type(error).__name__}: {hide_password(str(error))}"
            raise ConfigError(
                f"access.jwt.jwks: {hide_password(location)} is not a readable JWK set ({reason})."
            ) from None


def _download(url: str) -> bytes:
    if not url.startswith("https://"):
        raise ConfigError(
            f"access.jwt.jwks: {hide_password(url)} must be an https:// URL or a path."
        )
    with open_http_client(url, timeout=5.0) as client:
        response = client.get(url)
    response.raise_for_status()
    if len(response.content) > _MAX_JWKS_BYTES:
        raise ValueError(f"larger than {_MAX_JWKS_BYTES} bytes")
    return response.content


def _parse_roles(claim: Any) -> frozenset[str]:
    """Return the roles of a claim: a list, or text separated by blanks, as in ``scope``."""
    names = claim.split() if isinstance(claim, str) else claim
    if not isinstance(names, list):
        return frozenset()
    return frozenset(name for name in names if name in get_args(Role))
