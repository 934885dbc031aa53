"""Decides who asks, whether they may, and whether a service may be started without asking."""

import asyncio
import ipaddress
import math
from collections.abc import Iterable

from starlette.requests import Request

from cv_factory.config.serving import ServingConfig
from cv_factory.errors import ConfigError
from cv_factory.serving.auth.api_keys import FILE_VARIABLE, ApiKeyStore
from cv_factory.serving.auth.principal import ANYONE, Principal, Role
from cv_factory.serving.auth.rate_limit import RateLimiter
from cv_factory.serving.problem_details import ProblemError


def check_exposure(
    config: ServingConfig,
    keys: ApiKeyStore | None,
    hosts: Iterable[str],
    gateway: str | None = None,
) -> str | None:
    """Refuse to serve openly where other machines could ask.

    Args:
        config: Of the service.
        keys: That it asks for.
        hosts: Addresses that it listens on.
        gateway: What alone can reach it, and lets nobody through who may not ask.

    Returns:
        What to say at the start if the service is open, else None.

    Raises:
        ConfigError: It listens elsewhere than on loopback, without keys, and was not told to.
    """
    if keys is not None or config.access.jwt is not None:
        return None
    if gateway is not None:
        return f"{gateway} decides who may ask, and whoever it lets through is answered"
    exposed = sorted(host for host in hosts if not is_loopback(host))
    if exposed and not config.access.allow_open:
        raise ConfigError(
            f"The service would listen on {', '.join(exposed)} without asking for keys. Name a "
            f"file of API keys in {FILE_VARIABLE} (python -m cv_factory.serving.auth add FILE "
            "NAME), configure access.jwt, listen on 127.0.0.1, or set access.allow_open: true."
        )
    return "no API keys are configured: whoever reaches this address is answered"


def listening_hosts() -> list[str]:
    """Return the addresses that this process listens on: a worker has its server's socket."""
    import psutil

    connections = psutil.Process().net_connections("inet")
    return [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class AccessControl:
    """Asks every request who it is, and counts what it takes."""

    def __init__(self, config: ServingConfig, keys: ApiKeyStore | None) -> None:
        """Open the token issuer's keys where tokens are accepted.

        Raises:
            ConfigError: They cannot be had.
        """
        self._keys = keys
        self._rate = config.rate
        # Each worker counts for itself.
        self._share = 1.0 / config.workers
        self._by_address = RateLimiter(config.rate.burst_seconds)
        self._by_key = RateLimiter(config.rate.burst_seconds)
        self._tokens = None
        if config.access.jwt is not None:
            from cv_factory.serving.auth.tokens import TokenVerifier

            self._tokens = TokenVerifier(config.access.jwt)

    @property
    def is_open(self) -> bool:
        """Whether anyone is answered."""
        return self._keys is None and self._tokens is None

    def admit_address(self, request: Request) -> None:
        """Count a request of an address.

        Raises:
            ProblemError: 429: there were too many.
        """
        rate = self._rate.per_address
        if rate is None or request.client is None:
            return
        wait = self._by_address.take(request.client.host, rate * self._share)
        if wait:
            raise _too_many(f"this address may ask for {rate:g} images a second", wait)

    async def identify(self, request: Request, role: Role) -> Principal:
        """Return who asks, if it may.

        Raises:
            ProblemError: 401: nobody we know; 403: somebody who may not.
        """
        if self.is_open:
            return ANYONE
        found = await self._find(_credential(request))
        if not found.may(role):
            raise ProblemError(403, "forbidden", f"{found.name} has not the role {role!r}")
        return found

    def admit(self, principal: Principal, n: int) -> None:
        """Count ``n`` images of a key.

        Raises:
            ProblemError: 429: there were too many.
        """
        rate = principal.images_per_second or self._rate.per_key
        if rate is None:
            return
        wait = self._by_key.take(principal.name, rate * self._share, n)
        if wait:
            raise _too_many(f"{principal.name} may ask for {rate:g} images a second", wait)

    async def _find(self, credential: str) -> Principal:
        if self._keys is not None and (found := self._keys.find(credential)):
            return found
        # A token is three parts with dots between; keys have none.
        if self._tokens is None or credential.count(".") != 2:
            raise _unknown("the API key is not known, or was revoked")
        from cv_factory.serving.auth.tokens import TokenError

        try:
            return await asyncio.to_thread(self._tokens.find, credential)
        except TokenError as error:
            raise _unknown(f"the token is not valid: {error}") from None


def _credential(request: Request) -> str:
    """Return the key or token that a request carries.

    Raises:
        ProblemError: It carries none.
    """
    if key := request.headers.get("x-api-key"):
        return key
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credential:
        raise _unknown("send an API key as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'")
    return credential.strip()


def _unknown(detail: str) -> ProblemError:
    return ProblemError(401, "unauthorized", detail, {"WWW-Authenticate": "Bearer"})


def _too_many(detail: str, wait: float) -> ProblemError:
    return ProblemError(429, "too-many-requests", detail, {"Retry-After": str(math.ceil(wait))})
