"""Checks that the ZenML server answers, before ZenML retries for most of a minute."""

import urllib.error
import urllib.request
from http.client import HTTPException
from urllib.parse import urlsplit

from cv_factory.errors import StackError
from stacks.compat.mlflow_imports import defer_packages
from stacks.compat.zenml_active_stack import keep_active_stack
from stacks.compat.zenml_configuration import share_configuration_files

_TIMEOUT_S = 10.0


def require_server() -> None:
    """Check that the ZenML server that this client is connected to answers; before ``Client()``.

    ZenML's configuration files are shared with other processes and users from here on.

    Raises:
        StackError: It does not, or ZenML's folder cannot be written. Nothing was uploaded or
            created.
    """
    share_configuration_files()
    keep_active_stack()
    defer_packages()
    url = _store_url()
    if urlsplit(url).scheme not in ("http", "https"):
        return  # a database on this machine
    try:
        health = f"{url.rstrip('/')}/health"
        urllib.request.urlopen(health, timeout=_TIMEOUT_S).close()  # noqa: S310 (checked)
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise _unreachable(url, str(error)) from None
        # It answers; ZenML reports whether it grants access.
    except (OSError, HTTPException, ValueError) as error:
        raise _unreachable(url, str(getattr(error, "reason", error))) from None


def _store_url() -> str:
    """Return the address of ZenML's store; a first call creates ZenML's configuration."""
    from zenml.config.global_config import GlobalConfiguration

    try:
        return str(GlobalConfiguration().store_configuration.url)
    except OSError as error:
        raise StackError(
            f"ZenML's configuration {error.filename} cannot be used ({error.strerror}): set "
            "ZENML_CONFIG_PATH to a folder that you may write."
        ) from None


def _unreachable(url: str, reason: str) -> StackError:
    return StackError(
        f"The ZenML server at {url} does not answer ({reason}). Nothing was uploaded. Start it, or "
        "connect to another one: zenml login URL"
    )
