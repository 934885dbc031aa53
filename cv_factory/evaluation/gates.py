"""Gates: conditions on an ``Evaluation`` that decide whether a model may be staged.

A gate that cannot be computed is a failed gate. Where a gate's verdict leads, ``registry`` decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from cv_factory.config import GateConfig
from cv_factory.evaluation.evaluation import Evaluation

Status = Literal["passed", "failed", "not_applicable"]

# Below the effect of one image in any test set; above what subtracting two shares rounds to.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class GateVerdict:
    """What one gate said.

    Attributes:
        gate: The condition in words.
        metric: Which metric it is about.
        bound: The configured bound.
        observed: What was held against the bound: the metric, or for a relative gate the drop
            against production (negative for a gain); None where there is nothing to hold.
        status: ``passed``, ``failed`` or ``not_applicable``.
        reason: Why, in one sentence.
    """

    gate: str
    metric: str
    bound: float
    observed: float | None
    status: Status
    reason: str


def judge(
    gates: Sequence[GateConfig],
    candidate: Evaluation,
    production: Evaluation | None,
    *,
    production_problem: str = "",
) -> tuple[GateVerdict, ...]:
    """Return one verdict for each gate, in order.

    Args:
        gates: The conditions; a metric exactly at its bound passes.
        candidate: The model that wants to be staged.
        production: The model in production, scored on the same test images; None without one.
        production_problem: Why the model in production could not be scored: relative gates fail.
    """
    return tuple(
        _judge_minimum(gate.metric, gate.min, candidate)
        if gate.min is not None
        # GateConfig holds exactly one of the two bounds.
        else _judge_drop(
            gate.metric,
            cast(float, gate.max_drop_vs_production),
            candidate,
            production,
            production_problem,
        )
        for gate in gates
    )


def all_passed(verdicts: Sequence[GateVerdict]) -> bool:
    """Return whether no gate failed; one that is not applicable does not block."""
    return all(verdict.status != "failed" for verdict in verdicts)


def _judge_minimum(metric: str, bound: float, candidate: Evaluation) -> GateVerdict:
    gate = f"{metric} at least {bound:g}"
    observed, reason = _value(metric, candidate)
    if observed is None:
        return GateVerdict(gate, metric, bound, None, "failed", reason)
    ok = observed >= bound - _ROUNDING
    reason = f"{metric} is {_figure(observed)}"
    return GateVerdict(gate, metric, bound, observed, "passed" if ok else "failed", reason)


def _judge_drop(
    metric: str, bound: float, candidate: Evaluation, production: Evaluation | None, problem: str
) -> GateVerdict:
    gate = f"{metric} at most {bound:g} below production"
    if problem:
        reason = f"production could not be scored: {problem}"
        return GateVerdict(gate, metric, bound, None, "failed", reason)
    if production is None:
        reason = "there is no production model to compare with"
        return GateVerdict(gate, metric, bound, None, "not_applicable", reason)
    difference = _difference_of_images(candidate, production)
    ours, why_ours = _value(metric, candidate)
    theirs, why_theirs = _value(metric, production)
    if difference or ours is None or theirs is None:
        reason = difference or why_ours or f"production: {why_theirs}"
        return GateVerdict(gate, metric, bound, None, "failed", reason)
    drop = theirs - ours
    reason = f"{metric} is {_figure(ours)}, production's on the same images {_figure(theirs)}"
    status: Status = "passed" if drop <= bound + _ROUNDING else "failed"
    return GateVerdict(gate, metric, bound, drop, status, reason)


def _value(metric: str, evaluation: Evaluation) -> tuple[float | None, str]:
    """Return a metric's value, or None and why there is none."""
    measured = evaluation.metrics.get(metric)
    if measured is None:
        return None, f"the evaluation has no {metric}"
    if measured.value is None:
        return None, f"{metric} could not be computed: {measured.reason}"
    return measured.value, ""


def _difference_of_images(candidate: Evaluation, production: Evaluation) -> str:
    """Return what differs between the two test sets; empty if nothing (order does not count)."""
    if candidate.class_names != production.class_names:
        return "production was evaluated on other classes"
    ours, theirs = (
        dict(zip(e.predictions.ids, e.predictions.labels.tolist(), strict=True))
        for e in (candidate, production)
    )
    if ours.keys() != theirs.keys():
        return "production was evaluated on other test images"
    if ours != theirs:
        return "production was evaluated with other labels of the same test images"
    return ""


def _figure(value: float) -> str:
    return f"{value:.4f}"
