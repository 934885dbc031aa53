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


class RepeatedRequests(logging.Filter):
    """A count.

    Attributes:
        count: Requests that were sent again so far.
    """

    def __init__(self) -> None:
        """Begin at zero."""
        super().__init__()
        self.count = 0
        self._lock = threading.Lock()

    def on_attempt(self, request: Any, **_: Any) -> None:
        """Look at a request that botocore is about to send."""
        if request.context.get("retries", {}).get("attempt", 1) > 1:
            self._add()

    def filter(self, record: logging.LogRecord) -> bool:
        """Look at a line of s3fs's log; let pass what is more than a detail."""
        if str(record.msg).startswith(_REPEATED_BY_S3FS):
            self._add()
        return record.levelno > logging.DEBUG

    def _add(self) -> None:
        with self._lock:
            self.count += 1


@contextmanager
def counting_repeats(filesystem: Any) -> Iterator[RepeatedRequests]:
    """Count what a file system sends again inside the block; nothing for others than S3's.

    Args:
        filesystem: An ``fsspec.AbstractFileSystem``.
    """
    repeated = RepeatedRequests()
    if "s3" not in filesystem.protocol:
        yield repeated
        return
    events, log = filesystem.s3.meta.events, logging.getLogger("s3fs")
    level = log.level
    events.register(_ATTEMPT, repeated.on_attempt, unique_id=id(repeated))
    log.addFilter(repeated)
    log.setLevel(logging.DEBUG)
    try:
        yield repeated
    finally:
        log.setLevel(level)
        log.removeFilter(repeated)
        events.unregister(_ATTEMPT, unique_id=id(repeated))
