"""Checks of addresses, keys and certificates, the same for HTTP and gRPC."""

import ipaddress
import os
import re
from pathlib import Path

from cv_factory_client.errors import ClientConfigError

_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def hide_password(url: str) -> str:
    """Return a URL, which need not be valid, without user name and password."""
    return re.sub(r"//[^/\s]*@", "//", url)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def proxy_variables() -> list[str]:
    """Return the names of the environment's variables that name a proxy."""
    names = (*_PROXY_VARIABLES, *map(str.lower, _PROXY_VARIABLES))
    return [name for name in names if os.environ.get(name)]


def check_api_key(api_key: str | None) -> str:
    """Return a key or token that fits into a header; empty if there is none.

    Raises:
        ClientConfigError: It holds other characters; the message does not show them.
    """
    key = (api_key or "").strip()
    if not key.isascii() or not (key.isprintable() and " " not in key):
        raise ClientConfigError(
            "The API key holds characters that no key or token has, such as a line break, a blank "
            "or a letter that is not ASCII: check it where it comes from (for run.py: --api-key or "
            "CV_FACTORY_API_KEY)."
        )
    return key


def read_ca(ca: Path) -> str:
    """Return the PEM text of a CA certificate.

    Raises:
        ClientConfigError: The file cannot be read or holds no certificate.
    """
    try:
        text = ca.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ClientConfigError(f"The CA certificate {ca} cannot be read: {error}.") from None
    if "BEGIN CERTIFICATE" not in text:
        raise ClientConfigError(f"{ca} holds no certificate: it begins with BEGIN CERTIFICATE.")
    return text
