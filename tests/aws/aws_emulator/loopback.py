"""Keeps a process from talking to anything but this machine, and writes down every attempt."""

import os
import sys
from pathlib import Path
from typing import Any

#: Names the file to which attempts are added.
LOG_VARIABLE = "CV_FACTORY_TEST_ATTEMPTS"
_LOCAL = {"127.0.0.1", "::1", "localhost", "0.0.0.0", "::", ""}


class NotThisMachineError(ConnectionRefusedError):
    """Something tried to reach another machine."""


def stay_on_this_machine() -> None:
    """Refuse, from now on, to resolve or connect to any other host than this one."""
    own_name = os.uname().nodename
    log = Path(os.environ[LOG_VARIABLE])

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.getaddrinfo", "socket.gethostbyname"):
            host = arguments[0]
        elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
            host = arguments[1][0]
        else:
            return
        host = host.decode() if isinstance(host, bytes) else host or ""
        if host in _LOCAL or host == own_name or host.startswith("127."):
            return
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{event} {host} by {' '.join(sys.argv)[:200]}\n")
        raise NotThisMachineError(f"{host}: only this machine may be reached in these tests")

    sys.addaudithook(refuse)
