"""Counters of one service that its version is judged by: requests, errors and durations."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from prometheus_client.samples import Sample

from cv_factory.serving.prometheus_metrics import REQUEST_SECONDS_BUCKETS

#: Parts of the routes that predict; the others are pages, metrics and checks.
_PREDICTION_ROUTES = ("predict", "infer", "/ws", "/invocations")
_NONE_SLOW = (0,) * len(REQUEST_SECONDS_BUCKETS)


@dataclass(frozen=True)
class ServiceCounters:
    """Counts since a service and its proxy were started, or since an earlier moment.

    Attributes:
        answered: Prediction requests that the service answered, copies included.
        slower: Of these, those that took longer than each of ``REQUEST_SECONDS_BUCKETS``.
        server_errors: Requests that it answered with 5xx.
        sent: Requests of any kind that the proxy sent to it.
        errors: Of these, answered with 5xx, or not at all, such as when the client gave up.
        is_complete: Whether the service told what it counts; a crash leaves the proxy's counts.
    """

    answered: int = 0
    slower: tuple[int, ...] = _NONE_SLOW
    server_errors: int = 0
    sent: int = 0
    errors: int = 0
    is_complete: bool = True

    @property
    def requests(self) -> int:
        """Number of prediction requests, with those that were not answered at all."""
        if not self.is_complete:
            return max(self.sent, self.errors)
        return self.answered + max(0, self.errors - self.server_errors)

    def since(self, before: "ServiceCounters") -> "ServiceCounters":
        """Return what was counted since; what went back was started again at zero."""
        if self.sent < before.sent:  # the proxy counts anew
            before = replace(before, sent=0, errors=0)
        if self.answered < before.answered or self.server_errors < before.server_errors:
            before = ServiceCounters(sent=before.sent, errors=before.errors)
        return ServiceCounters(
            self.answered - before.answered,
            tuple(a - b for a, b in zip(self.slower, before.slower, strict=True)),
            self.server_errors - before.server_errors,
            self.sent - before.sent,
            max(0, self.errors - before.errors),  # while it answers, an error is counted too few
        )

    def fill(self, before: "ServiceCounters") -> "ServiceCounters":
        """Return the counters with those of an earlier look where the service did not tell.

        The errors do not decrease: Envoy's numbers are not of one moment.
        """
        known = self if self.is_complete else replace(before, sent=self.sent, errors=self.errors)
        if known.sent < before.sent:
            return known
        return replace(known, errors=max(known.errors, before.errors))

    def __add__(self, other: "ServiceCounters") -> "ServiceCounters":
        """Return the sums."""
        return ServiceCounters(
            self.answered + other.answered,
            tuple(a + b for a, b in zip(self.slower, other.slower, strict=True)),
            self.server_errors + other.server_errors,
            self.sent + other.sent,
            self.errors + other.errors,
        )


def parse_counters(metrics: str | None, sent: int, errors: int) -> ServiceCounters:
    """Return the counters of a service.

    Args:
        metrics: Its metrics as text; None where it does not answer.
        sent: As the proxy counts it.
        errors: As the proxy counts them.
    """
    if metrics is None:
        return ServiceCounters(sent=sent, errors=errors, is_complete=False)
    from prometheus_client.parser import text_string_to_metric_families

    answered, slower, server_errors = 0, list(_NONE_SLOW), 0
    for family in text_string_to_metric_families(metrics):
        if family.name == "cv_factory_requests":
            server_errors += sum(int(s.value) for s in family.samples if _is_server_error(s))
        elif family.name == "cv_factory_request_seconds":
            for counts in _cumulative_counts(family.samples).values():
                total = counts.get("+Inf", 0)
                answered += total
                for i, bound in enumerate(REQUEST_SECONDS_BUCKETS):
                    slower[i] += total - counts.get(str(bound), 0)
    return ServiceCounters(answered, tuple(slower), server_errors, sent, errors)


def _is_server_error(sample: Sample) -> bool:
    return sample.name.endswith("_total") and sample.labels["status"].startswith("5")


def _cumulative_counts(samples: Iterable[Sample]) -> dict[str, dict[str, int]]:
    """Return the numbers of requests up to each bound, by route that predicts and bound."""
    counts: dict[str, dict[str, int]] = {}
    for sample in samples:
        route = sample.labels.get("route", "")
        is_prediction = any(part in route.lower() for part in _PREDICTION_ROUTES)
        if is_prediction and sample.name.endswith("_bucket"):
            counts.setdefault(route, {})[sample.labels["le"]] = int(sample.value)
    return counts
