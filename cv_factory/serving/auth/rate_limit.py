"""Token-bucket rate limiter per name, such as a key or a client address."""

import time
from collections import OrderedDict
from collections.abc import Callable

#: Maximum number of buckets; the least recently used one is dropped first.
_MAX_BUCKETS = 10_000


class RateLimiter:
    """Token buckets by name, each refilled at its rate up to a burst."""

    def __init__(self, burst_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without buckets; each will hold ``burst_seconds`` of its rate, at least 1."""
        self._burst_seconds = burst_seconds
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, rate: float, n: int = 1) -> float:
        """Take ``n`` tokens out of a bucket, all or none.

        A full bucket grants more than it holds and then owes the rest.

        Args:
            name: Name of the bucket.
            rate: Tokens added a second.
            n: Number of tokens to take.

        Returns:
            0 if they were taken, else the seconds until they can be.
        """
        now = self._clock()
        burst = max(rate * self._burst_seconds, 1.0)
        level, last_update = self._buckets.get(name, (burst, now))
        level = min(burst, level + (now - last_update) * rate)
        required = min(float(n), burst)
        wait = 0.0 if level >= required else (required - level) / rate
        self._buckets[name] = (level if wait else level - n, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return wait
