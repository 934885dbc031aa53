"""What a process does with garbage in reference cycles when it ends."""

import subprocess
import sys
from pathlib import Path

from cv_factory.processes import garbage_collection

_CODE = """
import atexit
from cv_factory.processes.garbage_collection import collect_rarely

class Cycle:
    def __init__(self):
        self.itself = self
    def __del__(self):
        print("destroyed")

collect_rarely()
atexit.register(print, "handler of a library")
Cycle()
"""


def test_a_process_ends_without_destroying_what_is_in_cycles() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CODE],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(garbage_collection.__file__).parents[2],
    )
    assert done.stdout.split("\n") == ["handler of a library", ""]
