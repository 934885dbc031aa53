"""Harm: the error on labelled predictions lies above that on the held-out test images.

Betting against a bounded mean, after A. Podkopaev and A. Ramdas, Tracking the risk of a deployed
model and detecting harmful distribution shifts, ICLR 2022 (arXiv 2110.06177): the bound is the
upper confidence limit of the reference's error, so that a lucky draw of test images is no alarm.
"""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from cv_factory.config.detector_section import DetectorSection
from cv_factory.config.section import Fraction
from cv_factory.monitoring.finding import Finding, Status

if TYPE_CHECKING:
    from cv_factory.inference.reference import Reference
    from cv_factory.monitoring.window import Window

KIND: Literal["harm"] = "harm"


class ErrorRiseConfig(DetectorSection):
    """Rise of the labelled error, overall and by class."""

    evidence: float = Field(20.0, gt=1.0, description="alarm at this")
    reference_confidence: float = Field(
        0.95, gt=0.5, lt=1.0, description="of the upper limit of the error on the test images"
    )
    tolerance: Fraction = Field(0.0, description="rise of the error that is no harm")
    min_labels: int = Field(
        50, ge=1, description="fewer labels are not enough evidence to be silent on"
    )
    labels: Literal["sampled", "all"] = Field(
        "sampled",
        description="sampled: where the labels queue asked for some, they alone count; all: count "
        "others as if they had been drawn by chance, too",
    )


def detect(reference: "Reference", window: "Window", config: ErrorRiseConfig) -> list[Finding]:
    """Return one finding."""
    from cv_factory.monitoring.error_evidence import measure_error_rise, select_labels
    from cv_factory.monitoring.share_evidence import smallest_detectable_share
    from cv_factory.reporting.numbers import format_count

    labeled, n_left_out = select_labels(window, config.labels)
    n, test = len(labeled), reference.test
    rise = measure_error_rise(test, labeled, config.reference_confidence, config.tolerance)
    details: dict[str, Any] = {
        "error": rise.error,
        "reference_error": 1 - test.accuracy,
        "bound": rise.bound,
        "by_class": {reference.class_names[label]: row for label, row in rise.by_class.items()},
        "n_labels_left_out": n_left_out,
        "n_not_blind": int((~labeled.rows["is_blind"]).sum()),
    }
    least = smallest_detectable_share(n, rise.bound, config.evidence / rise.weight)
    limit = f"{n:,} labels show a rise from an error of about {least:.1%} on."
    left_out = (
        f" {n_left_out:,} labels do not count (labels={config.labels})." if n_left_out else ""
    )
    is_alarm = rise.evidence >= config.evidence
    if is_alarm:
        status: Status = "alarm"
        worst = ", ".join(reference.class_names[label] for label in rise.worst_classes)
        text = f"The error has risen{f', most in {worst}' if worst else ''}."
    elif n < config.min_labels:
        status = "not_enough_evidence"
        text = f"{format_count(n, 'label')} of {config.min_labels:,} needed."
    else:
        status, text = "silent", "No rise of the error is shown."
    if n:
        text += (
            f" {rise.error:.1%} of {n:,} labelled predictions are wrong; "
            f"{1 - test.accuracy:.1%} of {len(test):,} test images were, so that at most "
            f"{rise.bound:.1%} are to be expected. Evidence {rise.evidence:.3g} of "
            f"{config.evidence:g}."
        )
    text += left_out
    return [
        Finding("error_rise", KIND, status, text, n, rise.evidence, config.evidence, limit, details)
    ]
