"""Stands for a container: runs a step's entrypoint with a folder of its own as its ``/app``."""

import os
import sys
from typing import Any

from guarded import run

_APP = "/app"


def redirect_app(folder: str) -> None:
    """Make the folder take the place of ``/app``, which ZenML creates and enters."""
    make, change = os.makedirs, os.chdir

    def makedirs(name: Any, *arguments: Any, **options: Any) -> None:
        make(folder if name == _APP else name, *arguments, **options)

    def chdir(path: Any) -> None:
        change(folder if path == _APP else path)

    os.makedirs, os.chdir = makedirs, chdir


def enter(command: list[str], folder: str) -> None:
    """Run a container's command in this process, which works in the folder."""
    program, *rest = command
    if program != "python":
        sys.exit(f"the emulator runs python only, not {program}")
    redirect_app(folder)
    run(rest, folder)
