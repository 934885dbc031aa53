"""Runs Python's command line in this process, kept to this machine: ``guarded.py -m MODULE ...``.

Understands what the tests need of it: ``-m MODULE``, ``-c SOURCE`` and a script, with arguments.
"""

import runpy
import sys
from pathlib import Path

from loopback import stay_on_this_machine


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
