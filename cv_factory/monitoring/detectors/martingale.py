"""Anytime-valid drift of confidences, predicted classes, pixels and features, without labels.

The weighted mean of the capitals of conformal test martingales is one, too: a single evidence, with
no correction for the number of statistics or of looks.
"""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from cv_factory.config.detector_section import PredictionDetectorSection
from cv_factory.config.section import Seed
from cv_factory.monitoring.finding import Finding, Status

if TYPE_CHECKING:
    from cv_factory.inference.reference import Reference
    from cv_factory.monitoring.window import Window

KIND: Literal["drift"] = "drift"


class MartingaleConfig(PredictionDetectorSection):
    """Drift without labels, by conformal test martingales since the window's beginning."""

    evidence: float = Field(
        100.0, gt=1.0, description="alarm at this; 100: a false alarm in 1 % of deployments at most"
    )
    max_features: int = Field(32, ge=0, le=512, description="of the greatest variance")
    seed: Seed = Field(0, description="of the order of equal values")


def detect(reference: "Reference", window: "Window", config: MartingaleConfig) -> list[Finding]:
    """Return one finding; its evidence is the highest since the window's beginning."""
    import numpy as np

    from cv_factory.monitoring.conformal import BLOCK
    from cv_factory.monitoring.drift_statistics import measure_drift

    stream = window.distinct()
    n = len(stream)
    if n == 0:
        return [_finding("not_enough_evidence", "No predictions.", 0, None, config, "", {})]
    drift = measure_drift(reference, stream, config.max_features, config.seed)
    evidence = np.exp(np.minimum(drift.log_evidence, 700.0))
    highest = float(evidence.max())
    names = [drift.names[i] for i in np.argsort(-drift.log_capitals)[:3]]
    detail: dict[str, Any] = {
        "evidence_now": float(evidence[-1]),
        "looks": _thin(evidence, BLOCK, n),
        "statistics": {
            name: round(float(value), 3)
            for name, value in zip(drift.names, drift.log_capitals, strict=True)
        },
        "n_repeats": len(window) - n,
    }
    limit = _smallest_shift(drift.smallest_weight, n, len(reference.test), config.evidence)
    if highest >= config.evidence:
        at = min(int(np.argmax(evidence >= config.evidence) + 1) * BLOCK, n)
        detail |= {"n_until_alarm": at, "time_of_alarm": str(stream.rows["time"].iloc[at - 1])}
        text = (
            f"Predictions drifted: evidence {highest:.3g} of {config.evidence:g} needed, reached "
            f"after {at:,} of {n:,} predictions, most of all in {', '.join(names)}."
        )
        return [_finding("alarm", text, n, highest, config, limit, detail)]
    text = f"Evidence of drift {highest:.3g}, below {config.evidence:g}, in {n:,} predictions."
    status: Status = "silent" if n >= config.min_predictions else "not_enough_evidence"
    return [_finding(status, text, n, highest, config, limit, detail)]


def _finding(
    status: Status,
    summary: str,
    n: int,
    evidence: float | None,
    config: MartingaleConfig,
    limit: str,
    details: dict[str, Any],
) -> Finding:
    return Finding(
        "martingale", KIND, status, summary, n, evidence, config.evidence, limit, details
    )


def _thin(evidence: Any, block: int, n: int) -> list[list[float]]:
    """Return at most some 200 pairs of a number of predictions and the evidence after them."""
    step = -(-len(evidence) // 200)
    places = [*range(step - 1, len(evidence) - 1, step), len(evidence) - 1]
    return [[min((i + 1) * block, n), float(evidence[i])] for i in places]


def _smallest_shift(weight: float, n: int, n_reference: int, threshold: float) -> str:
    """Say which shift would probably have stayed unseen, from what the best bet earns."""
    import math

    # A shift by d standard deviations earns d^2 / 2 a value, less as values join the reference.
    n_effective = n * n_reference / (n + n_reference)
    shift = math.sqrt(2 * (math.log(threshold / weight) + 2.0) / n_effective)
    return (
        f"{n:,} predictions against {n_reference:,} held-out images show shifts of a statistic's "
        f"mean from about {shift:.2f} of its standard deviations on; smaller ones stay unseen."
    )
