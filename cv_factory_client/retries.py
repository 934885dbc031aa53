"""Retries of requests that were not processed, after the time that the service names."""

import random
from dataclasses import dataclass

from cv_factory_client.errors import ServiceError


@dataclass(frozen=True)
class RetryPolicy:
    """Limits of the retries of a call.

    Retried is only what had no effect: no connection was made, or the service rejected the request
    and said when to come again (429, and 503 with ``Retry-After``). Calls that change nothing, such
    as ``model_info``, are retried after lost connections and 502, 503 and 504, too.

    Attributes:
        attempts: Most attempts of a call; 1 does not retry.
        backoff_s: Seconds before the first retry where the service names none; they double.
        max_wait_s: Most seconds that a call waits between its attempts, in all. An error whose
            ``retry_after`` goes beyond is raised at once.
    """

    attempts: int = 4
    backoff_s: float = 0.1
    max_wait_s: float = 30.0


class RetryState:
    """Retries of one call.

    Args:
        policy: Their limits.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._n_attempts = 0
        self._waited_s = 0.0

    def next_wait_s(self, error: ServiceError) -> float:
        """Return the seconds to wait before the next attempt.

        Clients that failed together return at different times: up to a quarter is added at random.

        Raises:
            ServiceError: ``error``, where there is no further attempt.
        """
        self._n_attempts += 1
        wait_s = error.retry_after
        if wait_s is None:
            wait_s = self._policy.backoff_s * 2 ** (self._n_attempts - 1)
        wait_s *= random.uniform(1, 1.25)
        self._waited_s += wait_s
        if (
            not error.is_retryable
            or self._n_attempts >= self._policy.attempts
            or self._waited_s > self._policy.max_wait_s
        ):
            raise error
        return wait_s
