"""Stands for a container: runs a step's entrypoint with a folder of its own in place of ``/app``.

Run as ``python container.py python -m MODULE ...`` in that folder.
"""

import os
import sys
from pathlib import Path
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


if __name__ == "__main__":
    program, *rest = sys.argv[1:]
    if program != "python":
        sys.exit(f"the emulator runs python only, not {program}")
    redirect_app(str(Path.cwd()))
    run(rest, str(Path.cwd()))
