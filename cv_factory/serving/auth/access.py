"""Access control: authentication, roles, rate limits, and the check against accidental exposure."""

import asyncio
import math
from collections.abc import Iterable, Mapping

from cv_factory.config.serving import ServingConfig
from cv_factory.errors import ConfigError
from cv_factory.serving.addresses import is_loopback
from cv_factory.serving.auth.api_keys import FILE_VARIABLE, ApiKeyStore
from cv_factory.serving.auth.principal import ANONYMOUS, Principal, Role
from cv_factory.serving.auth.rate_limit import RateLimiter
from cv_factory.serving.problem_details import ProblemError

_HOW_TO_AUTHENTICATE = "send an API key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"


def check_exposure(
    config: ServingConfig,
    keys: ApiKeyStore | None,
    hosts: Iterable[str],
    gateway: str | None = None,
) -> str | None:
    """Refuse to serve without access control where other machines can connect.

    Args:
        config: Serving configuration.
        keys: API keys of the service, if it has any.
        hosts: IP addresses that it listens on.
        gateway: Name of a gateway that alone can reach it and authorizes clients.

    Returns:
        A warning if the service is open to everybody who reaches it, else None.

    Raises:
        ConfigError: It listens beyond loopback without keys, and ``access.allow_open`` is not set.
    """
    if keys is not None or config.access.jwt is not None:
        return None
    if gateway is not None:
        return f"no API keys are configured: {gateway} decides who may send requests"
    exposed = sorted(host for host in hosts if not is_loopback(host))
    if exposed and not config.access.allow_open:
        raise ConfigError(
            f"The service would listen on {', '.join(exposed)} without access control. Name a "
            f"file of API keys in {FILE_VARIABLE} (python -m cv_factory.serving.auth add FILE "
            "NAME), configure access.jwt, listen on 127.0.0.1, or set access.allow_open: true."
        )
    return "no API keys are configured: everybody who reaches this address may send requests"


def listening_hosts() -> list[str]:
    """Return the IP addresses that this process listens on; a worker has its server's socket."""
    import psutil

    connections = psutil.Process().net_connections("inet")
    return [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]


class AccessControl:
    """Authenticates requests and enforces roles and rate limits."""

    def __init__(
        self, config: ServingConfig, keys: ApiKeyStore | None, *, is_restart: bool = False
    ) -> None:
        """Fetch the token issuer's keys if tokens are accepted.

        Raises:
            ConfigError: They cannot be fetched, and this is no restart.
        """
        self._keys = keys
        self._rate = config.rate
        # Workers do not share buckets, so each enforces its part of a limit.
        self._worker_fraction = 1.0 / config.workers
        self._address_limiter = RateLimiter(config.rate.burst_seconds)
        self._key_limiter = RateLimiter(config.rate.burst_seconds)
        self._label_limiter = RateLimiter(config.rate.burst_seconds)
        self._tokens = None
        if config.access.jwt is not None:
            from cv_factory.serving.auth.tokens import TokenVerifier

            self._tokens = TokenVerifier(config.access.jwt, is_restart=is_restart)

    @property
    def is_open(self) -> bool:
        """Whether requests need no key and no token."""
        return self._keys is None and self._tokens is None

    def check_address_rate_limit(self, address: str | None) -> None:
        """Count a request of a client address, if it is known.

        Raises:
            ProblemError: 429: the address exceeds ``rate.per_address``.
        """
        rate = self._rate.per_address
        if rate is not None and address is not None:
            self._take(self._address_limiter, address, rate, 1, "this address")

    def check_rate_limit(self, principal: Principal, n: int) -> None:
        """Count ``n`` images of a principal.

        Raises:
            ProblemError: 429: it exceeds its own limit or ``rate.per_key``.
        """
        rate = principal.images_per_second or self._rate.per_key
        if rate is not None:
            self._take(self._key_limiter, principal.name, rate, n, principal.name)

    def check_label_rate_limit(self, principal: Principal, n: int) -> None:
        """Count ``n`` labels of a principal.

        Raises:
            ProblemError: 429: it exceeds ``rate.labels_per_key``.
        """
        if (rate := self._rate.labels_per_key) is not None:
            self._take(self._label_limiter, principal.name, rate, n, principal.name, "labels")

    async def identify(self, credential: str | None, role: Role) -> Principal:
        """Return the authenticated principal of an API key or token.

        Raises:
            ProblemError: 401: no valid key or token; 403: the principal lacks the role.
        """
        if self.is_open:
            return ANONYMOUS
        if credential is None:
            raise _unauthorized(_HOW_TO_AUTHENTICATE)
        principal = await self._authenticate(credential)
        if not principal.has_role(role):
            raise ProblemError(403, "forbidden", f"{principal.name} lacks the role {role!r}")
        return principal

    def _take(
        self,
        limiter: RateLimiter,
        name: str,
        rate: float,
        n: int,
        subject: str,
        unit: str = "images",
    ) -> None:
        if wait := limiter.take(name, rate * self._worker_fraction, n):
            detail = f"{subject} is limited to {rate:g} {unit} a second"
            headers = {"Retry-After": str(math.ceil(wait))}
            raise ProblemError(429, "too-many-requests", detail, headers)

    async def _authenticate(self, credential: str) -> Principal:
        if self._keys is not None and (principal := self._keys.find(credential)):
            return principal
        # A token is three parts separated by dots; keys contain none.
        if self._tokens is None or credential.count(".") != 2:
            raise _unauthorized("the API key is unknown or revoked")
        from cv_factory.serving.auth.tokens import MIN_FETCH_INTERVAL_S, TokenError

        try:
            return await asyncio.to_thread(self._tokens.verify, credential)
        except TokenError as error:
            raise _unauthorized(f"the token is not valid: {error}") from None
        except ConfigError:
            detail = "the keys of the token's issuer cannot be fetched now; retry later"
            headers = {"Retry-After": str(math.ceil(MIN_FETCH_INTERVAL_S))}
            raise ProblemError(503, "issuer-unavailable", detail, headers) from None


def read_credential(headers: Mapping[str, str]) -> str | None:
    """Return the API key or token of a request's headers or metadata; None if there is none.

    Args:
        headers: By lower-case name.
    """
    if key := headers.get("x-api-key"):
        return key
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    return credential.strip() or None if scheme.lower() == "bearer" else None


def _unauthorized(detail: str) -> ProblemError:
    return ProblemError(401, "unauthorized", detail, {"WWW-Authenticate": "Bearer"})
