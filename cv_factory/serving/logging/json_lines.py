"""JSON lines of the service: events, and a writer that no request waits for.

The caller chooses what is logged: pass it no header, no body and no key.
"""

import json
import logging
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO

from cv_factory.serving.json_encoder import encode_json

#: Logger of finished JSON lines; ``configure_event_logging`` sends them to standard error.
EVENT_LOGGER = logging.getLogger("cv_factory.serving.events")
#: Writing takes the interpreter's lock, which requests wait for, so lines are written in groups.
_WRITE_INTERVAL_S = 0.02
#: Minimum time between two reports that the log cannot be written.
_REPORT_INTERVAL_S = 1.0


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Handler of JSON lines that raises write errors, so that lost lines are counted."""

    terminator = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Write to the present ``sys.stderr``."""
        self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Raise the error that is being handled."""
        raise


def configure_event_logging() -> None:
    """Send events and request lines of this process to standard error, and nowhere else."""
    EVENT_LOGGER.handlers = [_StderrHandler()]
    EVENT_LOGGER.setLevel(logging.INFO)
    EVENT_LOGGER.propagate = False


def log_event(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log an event, such as the start, as one JSON line at once."""
    line = json.dumps({"time": timestamp(), "event": event, **fields}) + "\n"
    EVENT_LOGGER.log(level, "%s", line)


def timestamp(seconds: float | None = None) -> str:
    """Return a time in seconds since 1970, or the present one: ISO 8601, UTC, milliseconds."""
    moment = time.time() if seconds is None else seconds
    second, microseconds = divmod(round(moment * 1e6), 1_000_000)
    return f"{_format_second(second)}.{microseconds // 1000:03d}+00:00"


@lru_cache(maxsize=16)
def _format_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class AsyncLineWriter:
    """Queues records without blocking; a thread writes them as JSON lines, 50 times a second."""

    def __init__(
        self,
        write: Callable[[str], None],
        max_waiting: int = 10_000,
        on_drop: Callable[[int], None] = lambda n: None,
        encode: Callable[[list[Any]], list[Mapping[str, Any]]] | None = None,
    ) -> None:
        """Start the thread.

        Args:
            write: Writes one or more lines; called in the thread.
            max_waiting: Maximum queue length; further records are dropped.
            on_drop: Called with the number of records that are lost.
            encode: Returns what the lines of some queued records say, each JSON-serializable;
                called in the thread. None where the records are that.
        """
        self._write = write
        self._encode = encode
        self._max_waiting = max_waiting
        self._on_drop = on_drop
        self.dropped = 0
        self._queue: deque[Any] = deque()
        self._is_closing = threading.Event()
        self._last_report = -math.inf
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def put(self, record: Any) -> None:
        """Queue a record, or drop it if the queue is full."""
        if self.is_full:
            self.drop()
        else:
            self._queue.append(record)

    @property
    def is_full(self) -> bool:
        """Whether the queue takes no other record."""
        return len(self._queue) >= self._max_waiting

    def drop(self) -> None:
        """Count a record that is lost."""
        self._drop(1)

    def close(self) -> None:
        """Write what is queued and stop the thread."""
        self._is_closing.set()
        self._thread.join(timeout=5)

    def _work(self) -> None:
        while not self._is_closing.wait(_WRITE_INTERVAL_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        records = []
        while self._queue:
            records.append(self._queue.popleft())
        if not records:
            return
        try:
            entries = records if self._encode is None else self._encode(records)
            if entries:
                self._write(b"".join(encode_json(entry) + b"\n" for entry in entries).decode())
        except OSError as error:
            self._drop(len(records))
            self._report(error)

    def _drop(self, n: int) -> None:
        self.dropped += n
        self._on_drop(n)

    def _report(self, error: OSError) -> None:
        """Log that lines are lost; if that fails too, ``/metrics`` still counts them."""
        if time.monotonic() - self._last_report >= _REPORT_INTERVAL_S:
            self._last_report = time.monotonic()
            with suppress(OSError):
                log_event("log-unwritable", logging.ERROR, detail=str(error))
