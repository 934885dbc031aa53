"""Verdicts of gates, which the registry keeps and reads without what they were computed with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["passed", "failed", "not_applicable"]


@dataclass(frozen=True)
class GateVerdict:
    """Verdict of one gate.

    Attributes:
        gate: The condition in words.
        metric: Which metric it is about.
        bound: The configured bound.
        observed: What was held against the bound: the metric, or for a relative gate the gain
            against production (negative for a loss); None where there is nothing to hold.
        status: ``passed``, ``failed`` or ``not_applicable``.
        reason: Why, in one sentence.
    """

    gate: str
    metric: str
    bound: float
    observed: float | None
    status: Status
    reason: str


def all_passed(verdicts: Sequence[GateVerdict]) -> bool:
    """Return whether no gate failed; one that is not applicable does not block."""
    return all(verdict.status != "failed" for verdict in verdicts)
