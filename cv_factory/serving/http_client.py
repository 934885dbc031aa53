"""HTTP clients, alike in what a malformed URL or a proxy of the environment causes."""

import os
from typing import TYPE_CHECKING

from cv_factory.errors import ConfigError
from cv_factory.serving.addresses import hide_password, is_loopback, proxy_variables

if TYPE_CHECKING:
    from httpx import Client

_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")


def open_http_client(url: str, *, timeout: float) -> "Client":
    """Return a client with a base URL; addresses of this machine are reached without a proxy.

    Args:
        url: Base URL.
        timeout: Timeout of each request in seconds.

    Raises:
        ConfigError: The URL is malformed, or the environment's proxy cannot be used.
    """
    import httpx

    if not url.lower().startswith(("http://", "https://")):
        raise ConfigError(
            f"{hide_password(url)} is not a valid URL: it begins with http:// or https://, such as "
            "http://127.0.0.1:3000."
        )
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL as error:
        raise ConfigError(f"{hide_password(url)} is not a valid URL: {error}.") from None
    # With a transport, httpx does not read the variables of proxies.
    transport = httpx.HTTPTransport() if is_loopback(host) else None
    try:
        return httpx.Client(base_url=url, transport=transport, timeout=timeout)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ConfigError(
            f"{hide_password(url)} cannot be reached by the proxy of the environment: "
            f"{hide_password(str(error))} Unset {' and '.join(proxy_variables())}, or name a proxy "
            "with http://."
        ) from None


def bypass_proxies_on_loopback() -> None:
    """Add this machine to ``NO_PROXY``, for the clients of ZenML, MLflow and other packages."""
    if not proxy_variables():
        return
    for variable in ("NO_PROXY", "no_proxy"):
        present = os.environ.get(variable) or os.environ.get(variable.swapcase(), "")
        hosts = [host for host in present.replace(" ", "").split(",") if host]
        os.environ[variable] = ",".join(dict.fromkeys([*hosts, *_LOOPBACK_HOSTS]))
