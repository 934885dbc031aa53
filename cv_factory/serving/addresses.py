"""Addresses and proxies of the environment, as HTTP clients see them.

It imports nothing of this project: the client package links to this file.
"""

import ipaddress
import os
import re

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
