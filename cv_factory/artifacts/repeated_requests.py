"""Counts the requests to an object store that had to be sent again.

botocore and s3fs repeat what fails and say nothing of it; who runs a pipeline wants to know. What
aiohttp repeats by itself, once for a connection that broke off before an answer, is not counted.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Sent for every attempt, also those after the first.
_ATTEMPT = "request-created.s3"
#: How s3fs begins its line (level DEBUG) before it repeats a call that botocore has given up.
_REPEATED_BY_S3FS = "Retryable error"


class RepeatedRequests:
    """A count.

    Attributes:
        count: Requests that were sent again so far.
    """

    def __init__(self) -> None:
        """Begin at zero."""
        self.count = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        """Count one more."""
        with self._lock:
            self.count += 1

    def on_attempt(self, request: Any, **_: Any) -> None:
        """Look at a request that botocore is about to send."""
        if request.context.get("retries", {}).get("attempt", 1) > 1:
            self.add()


class _LinesOfS3fs(logging.Filter):
    """Looks at s3fs's log as long as anybody counts, and lets pass what its level lets pass else.

    One for the process, whose log it is: blocks may overlap, and only the first and the last of
    them change the log. A line names no file system, so that it counts for every open block.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._counts: tuple[RepeatedRequests, ...] = ()
        self._level = logging.NOTSET
        self._admitted = logging.NOTSET

    def open(self, count: RepeatedRequests) -> None:
        """Count for one more block."""
        log = logging.getLogger("s3fs")
        with self._lock:
            if not self._counts:
                self._level, self._admitted = log.level, log.getEffectiveLevel()
                log.addFilter(self)
                log.setLevel(min(logging.DEBUG, self._admitted))
            self._counts = (*self._counts, count)

    def close(self, count: RepeatedRequests) -> None:
        """Count no more for a block."""
        log = logging.getLogger("s3fs")
        with self._lock:
            self._counts = tuple(other for other in self._counts if other is not count)
            if not self._counts:
                log.setLevel(self._level)
                log.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Count a line that tells of a repeated call."""
        if str(record.msg).startswith(_REPEATED_BY_S3FS):
            for count in self._counts:
                count.add()
        return record.levelno >= self._admitted


_LINES = _LinesOfS3fs()


@contextmanager
def counting_repeats(filesystem: Any) -> Iterator[RepeatedRequests]:
    """Count what a file system sends again inside the block; nothing for others than S3's.

    Blocks may overlap in threads. What s3fs repeats by itself then counts for each of them.

    Args:
        filesystem: An ``fsspec.AbstractFileSystem``.
    """
    repeated = RepeatedRequests()
    if "s3" not in filesystem.protocol:
        yield repeated
        return
    events = filesystem.s3.meta.events
    events.register(_ATTEMPT, repeated.on_attempt, unique_id=id(repeated))
    _LINES.open(repeated)
    try:
        yield repeated
    finally:
        _LINES.close(repeated)
        events.unregister(_ATTEMPT, unique_id=id(repeated))
