"""Gates: conditions on an ``Evaluation`` that decide whether a model may be staged.

A gate that cannot be computed is a failed gate. Where a gate's verdict leads, ``registry`` decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.config.gates import GateConfig
from cv_factory.config.metric_names import DATA_FIGURES
from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.evaluation.gate_verdict import GateVerdict, Status
from cv_factory.evaluation.metric_functions import EvaluationError
from cv_factory.evaluation.paired_comparison import compare
from cv_factory.evaluation.slices import SliceMetrics
from cv_factory.reporting.numbers import format_beside_limit

#: The gate of a predictor of fewer bits, where the configuration has none on this metric.
PRECISION_GATE = GateConfig(metric="accuracy_lost_to_precision", max=0.01)

# Below the effect of one image in any test set; above what subtracting two shares rounds to.
_ROUNDING = 1e-9
_WORDS = {
    "min": "at least {bound:g}",
    "max": "at most {bound:g}",
    "max_drop_vs_production": "no more than {bound:g} worse than production",
    "min_gain_vs_production": "better than production by {bound:g} or more",
}


@dataclass(frozen=True)
class Evidence:
    """Evidence that gates are decided on.

    Attributes:
        candidate: The model that wants to be staged.
        production: The model in production, scored on the same test images; None without one.
        production_problem: Why the model in production could not be scored: relative gates fail.
        is_production: Whether the candidate is the model in production itself.
        data_findings: Unmet expectations about the data: severity (``error`` or ``warning``) by
            name; None if the data was not validated.
        config: For the paired tests.
    """

    candidate: Evaluation
    production: Evaluation | None = None
    production_problem: str = ""
    is_production: bool = False
    data_findings: Mapping[str, str] | None = None
    config: EvaluateConfig = field(default_factory=EvaluateConfig)


class _NotComputableError(Exception):
    """A gate has nothing to hold against its bound; the message is the reason."""


def judge(gates: Sequence[GateConfig], evidence: Evidence) -> tuple[GateVerdict, ...]:
    """Return one verdict for each gate, in order; a metric exactly at its bound passes."""
    return tuple(_judge(gate, evidence) for gate in gates)


def require_precision_gate(gates: Sequence[GateConfig], precision: str) -> tuple[GateConfig, ...]:
    """Return the gates, with one against the float32 predictor where a reduced one has none.

    A reduced predictor may replace a staged float32 version, whose gates say nothing of it. No
    gates stay no gates: then nothing is staged.
    """
    metrics = {gate.metric for gate in gates}
    if not gates or precision == "float32" or PRECISION_GATE.metric in metrics:
        return tuple(gates)
    return (*gates, PRECISION_GATE)


def describe_gate(gate: GateConfig) -> str:
    """Return the condition in words, such as ``accuracy on class=cat at least 0.9``."""
    kind, bound = gate.bound
    where = f" on {gate.slice}" if gate.slice else ""
    return f"{gate.metric}{where} {_WORDS[kind].format(bound=bound)}"


def _judge(gate: GateConfig, evidence: Evidence) -> GateVerdict:
    kind, bound = gate.bound
    words = describe_gate(gate)
    try:
        if kind.endswith("vs_production"):
            return _judge_relative(gate, words, evidence)
        observed, reason = _observe(gate, evidence)
    except _NotComputableError as error:
        return GateVerdict(words, gate.metric, bound, None, "failed", str(error))
    ok = observed >= bound - _ROUNDING if kind == "min" else observed <= bound + _ROUNDING
    return GateVerdict(words, gate.metric, bound, observed, "passed" if ok else "failed", reason)


def _observe(gate: GateConfig, evidence: Evidence) -> tuple[float, str]:
    """Return the figure that an absolute gate bounds, and a sentence about it."""
    if gate.metric in DATA_FIGURES:
        return _count_findings(gate, evidence.data_findings)
    if gate.slice is not None:
        worst = _find_worst_slice(gate, evidence.candidate)
        value = worst.accuracy if gate.metric == "accuracy" else worst.log_loss
        text = format_beside_limit(value, gate.bound[1], ".4f")
        return value, f"{gate.metric} on {worst.name} ({worst.n_images} images) is {text}"
    measured = evidence.candidate.metrics.get(gate.metric)
    if measured is not None:
        if measured.value is None:
            raise _NotComputableError(f"{gate.metric} could not be computed: {measured.reason}")
        text = format_beside_limit(measured.value, gate.bound[1], ".4f")
        return measured.value, f"{gate.metric} is {text}"
    figures = evidence.candidate.behavior.figures()
    if gate.metric not in figures:
        raise _NotComputableError(f"the evaluation has no {gate.metric}: it was not measured")
    figure = figures[gate.metric]
    return figure, f"{gate.metric} is {format_beside_limit(figure, gate.bound[1], ',.4g')}"


def _count_findings(gate: GateConfig, findings: Mapping[str, str] | None) -> tuple[float, str]:
    if findings is None:
        raise _NotComputableError("the data was not validated")
    severity = gate.metric.removeprefix("data_").removesuffix("s")
    unmet = [name for name, value in findings.items() if value == severity]
    unexplained = [name for name in unmet if name not in gate.explained]
    explained = [f"{name} ({gate.explained[name]})" for name in unmet if name in gate.explained]
    parts = [f"unexplained: {', '.join(unexplained)}"] if unexplained else []
    if explained:
        parts.append(f"explained: {', '.join(explained)}")
    return float(len(unexplained)), "; ".join(parts) or f"no {severity}"


def _find_worst_slice(gate: GateConfig, evaluation: Evaluation) -> SliceMetrics:
    """Return the slice that a gate names, or the worst one of the column that it names."""
    slice_name = str(gate.slice)
    matching_slices = [s for s in evaluation.slices if slice_name in (s.column, s.name)]
    if not matching_slices:
        if slice_name.partition("=")[0] in {s.column for s in evaluation.slices}:
            raise _NotComputableError(f"no test image has {slice_name}")
        columns = ", ".join(sorted({s.column for s in evaluation.slices})) or "none"
        raise _NotComputableError(f"there is no slice {slice_name}; columns with slices: {columns}")
    large = [s for s in matching_slices if s.n_images >= evaluation.min_slice_images]
    if not large:
        raise _NotComputableError(
            f"{slice_name} has fewer than {evaluation.min_slice_images} images in every slice"
        )
    if gate.metric == "log_loss":
        return max(large, key=lambda s: s.log_loss)
    return min(large, key=lambda s: s.accuracy)


def _judge_relative(gate: GateConfig, words: str, evidence: Evidence) -> GateVerdict:
    """Judge against production: neither a loss nor a gain within chance counts."""
    kind, bound = gate.bound
    candidate, production = evidence.candidate, evidence.production
    if evidence.is_production:
        reason = "this predictor is the one in production"
        return GateVerdict(words, gate.metric, bound, None, "not_applicable", reason)
    if evidence.production_problem:
        raise _NotComputableError(f"production could not be scored: {evidence.production_problem}")
    if production is None:
        reason = "there is no production model to compare with"
        return GateVerdict(words, gate.metric, bound, None, "not_applicable", reason)
    if difference := _difference_of_images(candidate, production):
        raise _NotComputableError(difference)
    try:
        comparison = compare(
            gate.metric, candidate, production, evidence.config, _select_images(gate, candidate)
        )
    except EvaluationError as error:
        raise _NotComputableError(f"{gate.metric} could not be compared: {error}") from None
    if kind == "max_drop_vs_production":
        ok = -comparison.gain <= bound + _ROUNDING or not comparison.is_beyond_chance
    else:
        ok = (
            comparison.gain >= bound - _ROUNDING
            and comparison.gain > 0
            and comparison.is_beyond_chance
        )
    chance = "beyond chance" if comparison.is_beyond_chance else "within chance"
    least = -bound if kind == "max_drop_vs_production" else bound
    gain = format_beside_limit(comparison.gain, least, "+.4f")
    reason = f"gain {gain} on the same images, {chance} ({comparison.evidence})"
    status: Status = "passed" if ok else "failed"
    return GateVerdict(words, gate.metric, bound, comparison.gain, status, reason)


def _select_images(gate: GateConfig, evaluation: Evaluation) -> NDArray[np.bool_] | None:
    if gate.slice is None:
        return None
    worst = _find_worst_slice(gate, evaluation)
    return evaluation.predictions.in_slice(worst.column, worst.value)


def _difference_of_images(candidate: Evaluation, production: Evaluation) -> str:
    """Return what differs between the two test sets; empty if nothing (order does not count)."""
    if candidate.class_names != production.class_names:
        return "production was evaluated on other classes (--model NAME registers another model)"
    ours, theirs = (e.predictions.label_by_id for e in (candidate, production))
    if ours.keys() != theirs.keys():
        return "production was evaluated on other test images"
    if ours != theirs:
        return "production was evaluated with other labels of the same test images"
    return ""
