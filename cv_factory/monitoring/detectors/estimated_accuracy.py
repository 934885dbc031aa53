"""Accuracy without labels: an alarm where even its estimate plus the estimate's error is too low.

How far an estimator is off was measured on corrupted test images when the version was trained; no
estimator is safe on a shift that was not tried.
"""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from cv_factory.config.detector_section import PredictionDetectorSection
from cv_factory.config.section import Fraction
from cv_factory.monitoring.finding import Finding, Status

if TYPE_CHECKING:
    from cv_factory.inference.reference import Reference
    from cv_factory.monitoring.window import Window

KIND: Literal["performance"] = "performance"
#: Standard errors of a mean over the window that are allowed for, since one looks often.
_STANDARD_ERRORS = 4.0


class EstimatedAccuracyConfig(PredictionDetectorSection):
    """Estimated accuracy against that on the test images."""

    max_drop: Fraction = Field(
        0.05, description="alarm where the accuracy fell by more, even if the estimate is too low"
    )


def detect(
    reference: "Reference", window: "Window", config: EstimatedAccuracyConfig
) -> list[Finding]:
    """Return one finding; its evidence is the drop that is left after all allowances."""
    from cv_factory.monitoring.estimator_errors import best_estimator

    stream, accuracy = window.distinct(), reference.test.accuracy
    n, best = len(stream), best_estimator(reference)
    if n < config.min_predictions or best is None:
        text = (
            f"{n:,} predictions of {config.min_predictions:,} needed."
            if best
            else "The errors of the estimators were not measured when the version was trained."
        )
        return [Finding("estimated_accuracy", KIND, "not_enough_evidence", text, n)]
    details = {"reference_accuracy": accuracy, "estimator": best, **_estimate(reference, stream)}
    # An estimate that is too high hides a fall, and makes up none.
    estimate, error = details[best]["estimate"], details[best]["expected_underestimate"]
    noise = _STANDARD_ERRORS * (max(estimate * (1 - estimate), 0.01) / n) ** 0.5
    drop = accuracy - estimate - error - noise
    status: Status = "alarm" if drop >= config.max_drop else "silent"
    verdict = "The accuracy fell" if status == "alarm" else "No fall of the accuracy shown"
    text = (
        f"{verdict}: {best} estimates {estimate:.1%}, at most {error:.1%} too low; "
        f"{accuracy:.1%} on the test images."
    )
    limit = (
        f"{n:,} predictions show by {best} an accuracy below about "
        f"{accuracy - config.max_drop - error - noise:.1%}."
    )
    return [
        Finding("estimated_accuracy", KIND, status, text, n, drop, config.max_drop, limit, details)
    ]


def _estimate(reference: "Reference", stream: "Window") -> dict[str, Any]:
    """Return estimate and expected errors of each estimator whose errors were measured."""
    from cv_factory.monitoring.estimator_errors import bound_errors
    from cv_factory.monitoring.estimators import estimate_accuracy

    rows = {}
    for name in sorted({row.estimator for row in reference.estimator_errors}):
        estimate = estimate_accuracy(name, reference.validation, stream.probabilities)
        too_high, too_low = bound_errors(reference, name, estimate, stream.statistics)
        rows[name] = {
            "estimate": estimate,
            "expected_error": max(too_high, too_low),
            "expected_underestimate": too_low,
        }
    return rows
