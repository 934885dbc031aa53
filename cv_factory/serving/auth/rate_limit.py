"""Token buckets: how much somebody may still ask for, for as many as there are."""

import time
from collections import OrderedDict
from collections.abc import Callable

#: So many are remembered; the one that has been quiet longest is forgotten first.
_MAX_REMEMBERED = 10_000


class RateLimiter:
    """A bucket a name, each filled at its rate up to a burst."""

    def __init__(self, burst_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Remember nobody yet; a bucket holds ``burst_seconds`` of its rate, at least 1."""
        self._burst_seconds = burst_seconds
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, rate: float, n: int = 1) -> float:
        """Take ``n`` out of a bucket, whole or not at all.

        More than a bucket holds can be taken from a full one, which then owes the rest.

        Args:
            name: Whose bucket.
            rate: At which it fills, a second.
            n: How much is asked for.

        Returns:
            0 if it was taken, else the seconds after which it could be.
        """
        now = self._clock()
        burst = max(rate * self._burst_seconds, 1.0)
        level, seen = self._buckets.get(name, (burst, now))
        level = min(burst, level + (now - seen) * rate)
        needed = min(float(n), burst)
        wait = 0.0 if level >= needed else (needed - level) / rate
        self._buckets[name] = (level if wait else level - n, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > _MAX_REMEMBERED:
            self._buckets.popitem(last=False)
        return wait
