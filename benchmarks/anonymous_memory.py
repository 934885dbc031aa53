"""Anonymous memory of this process: pages of mapped files do not count."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Self


def anonymous_bytes() -> int:
    """Return what the process holds now (RssAnon of /proc/self/status)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not tell RssAnon")


class PeakMemory:
    """Samples anonymous memory every 20 ms, in a ``with`` block.

    Attributes:
        before: Bytes when the block began.
        peak: The most that was seen since; may be set back to 0.
    """

    def __init__(self) -> None:
        """Sample nothing yet."""
        self.before = self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    @property
    def growth(self) -> int:
        """Bytes by which the peak lies above the beginning."""
        return self.peak - self.before

    def _sample(self) -> None:
        while not self._ended.wait(0.02):
            self.peak = max(self.peak, anonymous_bytes())

    def __enter__(self) -> Self:
        """Begin to sample."""
        self.before = self.peak = anonymous_bytes()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Sample a last time and end."""
        self._ended.set()
        self._thread.join()
        self.peak = max(self.peak, anonymous_bytes())
