"""Runs Python's command line in this process, kept to this machine: ``guarded.py -m MODULE ...``.

Whatever else is to be reached is refused, and every attempt is written down. Understands what the
tests need of Python: ``-m MODULE``, ``-c SOURCE`` and a script, with arguments.
"""

import os
import runpy
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


def run(arguments: list[str], folder: str) -> None:
    """Run a Python command line.

    Args:
        arguments: What stands after ``python``.
        folder: Comes first in ``sys.path``, in place of this file's.
    """
    sys.path[0] = folder
    stay_on_this_machine()
    first, *rest = arguments
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    run(sys.argv[1:], str(Path.cwd()))
