"""Finds out at once whether the ZenML server answers: ZenML itself tries for most of a minute."""

import urllib.error
import urllib.request
from urllib.parse import urlsplit

from cv_factory.errors import StackError

_SECONDS_TO_ANSWER = 10.0


def require_server() -> None:
    """Refuse to go on where the ZenML server that this client is connected to does not answer.

    Raises:
        StackError: It does not. Nothing was uploaded or created.
    """
    from zenml.config.global_config import GlobalConfiguration

    url = str(GlobalConfiguration().store_configuration.url)
    if urlsplit(url).scheme not in ("http", "https"):
        return  # a database on this machine
    try:
        health = f"{url.rstrip('/')}/health"
        urllib.request.urlopen(health, timeout=_SECONDS_TO_ANSWER).close()  # noqa: S310 (checked)
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise _unreachable(url, str(error)) from None
        # It does answer; whether it lets us in is for ZenML to say.
    except (urllib.error.URLError, OSError) as error:
        raise _unreachable(url, str(getattr(error, "reason", error))) from None


def _unreachable(url: str, reason: str) -> StackError:
    return StackError(
        f"The ZenML server at {url} does not answer ({reason}). Nothing was uploaded. Start it, or "
        "connect to another one: zenml login URL"
    )
