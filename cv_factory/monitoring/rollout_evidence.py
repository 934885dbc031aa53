"""Evidence of a rollout, accumulated from look to look, and its file.

The file outlives the process that looks, so that the next look goes on where the last one stopped.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from cv_factory.artifacts.files import canonical_json, write_atomic
from cv_factory.errors import ArtifactError
from cv_factory.monitoring.sequential.two_rates import (
    ODDS_RATIOS,
    LogEvidence,
    Rate,
    log_likelihood_ratios,
)
from cv_factory.serving.prometheus_metrics import REQUEST_SECONDS_BUCKETS
from cv_factory.serving.service_counters import ServiceCounters


class _Stored(TypedDict):
    """``RolloutEvidence`` as its file holds it."""

    entry: int
    step_index: int
    step_requests: int
    version: ServiceCounters
    production: ServiceCounters
    log_errors: list[float]
    log_latency: list[list[float]]
    counters: dict[str, ServiceCounters]


_STORED = TypeAdapter(_Stored)
#: Largest factor by which one look may raise the evidence of latency: a version that stalls once is
#: slow for many requests, which do not depend on each other's outcome alone.
_MAX_FACTOR_OF_A_LOOK = 5.0


@dataclass(frozen=True)
class RolloutEvidence:
    """Evidence since a rollout began, from the counters of its arms.

    Attributes:
        entry: ``RolloutState.entry``.
        step_index: Step that ``step_requests`` counts for.
        step_requests: Requests of the version in this step.
        version: Its counts since the rollout began.
        production: Those of the version in production.
        log_errors: See ``log_likelihood_ratios``.
        log_latency: A row for each of ``REQUEST_SECONDS_BUCKETS``.
        counters: What each service had counted at the last look, by its name.
    """

    entry: int
    step_index: int = 0
    step_requests: int = 0
    version: ServiceCounters = field(default_factory=ServiceCounters)
    production: ServiceCounters = field(default_factory=ServiceCounters)
    log_errors: LogEvidence = field(default_factory=lambda: np.zeros(len(ODDS_RATIOS)))
    log_latency: LogEvidence = field(
        default_factory=lambda: np.zeros((len(REQUEST_SECONDS_BUCKETS), len(ODDS_RATIOS)))
    )
    counters: dict[str, ServiceCounters] = field(default_factory=dict)

    def look(
        self, counters: Mapping[str, ServiceCounters], own_name: str, max_ratio: float
    ) -> "RolloutEvidence":
        """Return the evidence after another look at the counters.

        Args:
            counters: Of all services, by name; one that was not there before counts from now on.
            own_name: Name of the version's service.
            max_ratio: ``LatencyLimits.max_ratio``.
        """
        if own_name not in counters or len(counters) < 2:
            return self  # it was given nothing, or there is nothing to compare it with
        if any(not c.is_complete and name not in self.counters for name, c in counters.items()):
            return self  # where it began is not known yet
        # Of one that crashed the proxy's counts remain; what it answered is counted later.
        present = {
            name: c.fill(self.counters[name]) if name in self.counters else c
            for name, c in counters.items()
        }
        is_complete = all(c.is_complete for c in counters.values())
        deltas = {
            name: replace(c.since(self.counters.get(name, c)), is_complete=is_complete)
            for name, c in present.items()
        }
        own = deltas.pop(own_name)
        others = replace(sum(deltas.values(), ServiceCounters()), is_complete=is_complete)
        return replace(self.observe(own, others, max_ratio), counters=present)

    def observe(
        self, version: ServiceCounters, production: ServiceCounters, max_ratio: float
    ) -> "RolloutEvidence":
        """Return the evidence after another look.

        Args:
            version: Counts of the version since the last look.
            production: Those of production, in the same time.
            max_ratio: ``LatencyLimits.max_ratio``.
        """
        log_errors = log_likelihood_ratios(
            Rate(version.requests, min(version.errors, version.requests)),
            Rate(production.requests, min(production.errors, production.requests)),
        )
        log_latency = np.zeros_like(self.log_latency)
        for row, slower in slower_buckets(max_ratio).items():
            ratios = log_likelihood_ratios(
                Rate(version.answered, version.slower[slower]),
                Rate(production.answered, production.slower[row]),
            )
            log_latency[row] = np.minimum(ratios, np.log(_MAX_FACTOR_OF_A_LOOK))
        return replace(
            self,
            step_requests=self.step_requests + version.requests,
            version=self.version + version,
            production=self.production + production,
            log_errors=self.log_errors + log_errors,
            log_latency=self.log_latency + log_latency,
        )

    def begin_step(self, step_index: int) -> "RolloutEvidence":
        """Return the evidence at the beginning of a step, if it is another one."""
        if step_index == self.step_index:
            return self
        return replace(self, step_index=step_index, step_requests=0)

    def save(self, file: Path) -> None:
        """Write it whole, or leave what is there."""
        content = {
            **asdict(self),
            "log_errors": self.log_errors.tolist(),
            "log_latency": self.log_latency.tolist(),
        }
        write_atomic(file, canonical_json(content).encode())

    @classmethod
    def load(cls, file: Path, entry: int) -> "RolloutEvidence":
        """Read it; none yet where the file is missing or is that of another rollout.

        Raises:
            ArtifactError: It is damaged.
        """
        try:
            stored = _STORED.validate_json(file.read_bytes())
        except FileNotFoundError:
            return cls(entry)
        except ValidationError as error:
            raise ArtifactError(
                f"{file} is damaged ({error}): delete it, and the evidence of the rollout begins "
                "anew."
            ) from None
        arrays = {name: np.array(stored[name]) for name in ("log_errors", "log_latency")}
        values: dict[str, Any] = dict(stored) | arrays
        evidence = cls(**values)
        return evidence if evidence.entry == entry else cls(entry)


def slower_buckets(max_ratio: float) -> dict[int, int]:
    """Return, by bucket that holds for production, that beyond which a version is slow.

    It is the first one of at least ``max_ratio`` times the duration; the longest have none.
    """
    pairs = {}
    for row, bound in enumerate(REQUEST_SECONDS_BUCKETS):
        slower = [i for i, b in enumerate(REQUEST_SECONDS_BUCKETS) if b >= bound * max_ratio]
        if slower:
            pairs[row] = slower[0]
    return pairs
