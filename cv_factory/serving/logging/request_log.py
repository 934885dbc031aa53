"""Lines of JSON that are written by a thread of their own, so that no request waits for a disk.

What is logged is chosen by whoever logs: no header, no body and no key ever comes here.
"""

import json
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

#: A line takes time of the interpreter that requests wait for: few at a time.
_SECONDS_BETWEEN_WRITES = 0.02
#: A disk that stays full is told about no more often.
_SECONDS_BETWEEN_COMPLAINTS = 1.0
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class AsyncLineWriter:
    """Takes records without waiting and writes them 50 times a second, in order."""

    def __init__(self, write: Callable[[str], None], max_waiting: int = 10_000) -> None:
        """Start the thread.

        Args:
            write: Writes some lines; called in the thread.
            max_waiting: Records that wait; beyond it new ones are dropped and counted.
        """
        self._write = write
        self._max_waiting = max_waiting
        self._waiting: deque[Mapping[str, Any]] = deque()
        self._closing = threading.Event()
        self._complained = -math.inf
        self.dropped = 0
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def put(self, record: Mapping[str, Any]) -> None:
        """Take a record (JSON-serializable), or drop it if too many wait."""
        if len(self._waiting) < self._max_waiting:
            self._waiting.append(record)
        else:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits and end the thread."""
        self._closing.set()
        self._thread.join(timeout=5)

    def _work(self) -> None:
        while not self._closing.wait(_SECONDS_BETWEEN_WRITES):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        lines = []
        while self._waiting:
            lines.append(_ENCODE(self._waiting.popleft()) + "\n")
        if not lines:
            return
        try:
            self._write("".join(lines))
        except OSError as error:
            self.dropped += len(lines)
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        """Say that lines are lost; where not even that can be said, /metrics has their number."""
        if time.monotonic() - self._complained >= _SECONDS_BETWEEN_COMPLAINTS:
            self._complained = time.monotonic()
            with suppress(OSError):
                say("log-unwritable", detail=str(error))


def now() -> str:
    """Return the present time: ISO 8601, UTC, milliseconds."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")


def write_to_stderr(lines: str) -> None:
    """Write lines to standard error."""
    sys.stderr.write(lines)
    sys.stderr.flush()


def say(event: str, **facts: Any) -> None:
    """Write one line at once: for what happens rarely, such as the start."""
    write_to_stderr(json.dumps({"time": now(), "event": event, **facts}) + "\n")
