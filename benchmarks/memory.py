"""Anonymous memory of this process, without the pages of mapped files, and its peak over a time."""

import threading
import time
from pathlib import Path


def anonymous_bytes() -> int:
    """Return what the process holds now.

    Raises:
        RuntimeError: The kernel is not Linux, and does not tell.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not tell RssAnon")


class Peak(threading.Thread):
    """Samples anonymous memory every 20 ms; ``bytes`` is the largest so far, and may be reset."""

    def __init__(self) -> None:
        """Prepare; ``start`` begins."""
        super().__init__(daemon=True)
        self.bytes = 0

    def run(self) -> None:
        """Sample until the process ends."""
        while True:
            self.bytes = max(self.bytes, anonymous_bytes())
            time.sleep(0.02)
