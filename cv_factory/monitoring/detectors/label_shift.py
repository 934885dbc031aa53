"""Shares of the true classes without labels, if images of a class look as before: no alarm.

By expectation maximization and, beside it, by the confusion matrix (``monitoring.label_shift``):
where the two disagree, images of a class do not look as before.
"""

from typing import TYPE_CHECKING, Literal

from cv_factory.config.detector_section import PredictionDetectorSection
from cv_factory.monitoring.finding import Finding

if TYPE_CHECKING:
    from cv_factory.inference.reference import Reference
    from cv_factory.monitoring.window import Window

KIND: Literal["drift"] = "drift"
#: Predictions that the shares are estimated from, spread evenly over the window.
_MAX_ROWS = 10_000


class LabelShiftConfig(PredictionDetectorSection):
    """Estimated shares of the true classes; explains, and is no alarm."""


def detect(reference: "Reference", window: "Window", config: LabelShiftConfig) -> list[Finding]:
    """Return one finding; its evidence is the total variation from the reference's shares."""
    import numpy as np

    from cv_factory.monitoring.label_shift import (
        count_shares,
        estimate_shares_by_bbse,
        estimate_shares_by_em,
    )

    stream, test = window.distinct(), reference.test
    n = len(stream)
    if n < config.min_predictions:
        text = f"{n:,} predictions of {config.min_predictions:,} needed."
        return [Finding("label_shift", KIND, "not_enough_evidence", text, n)]
    rows = np.linspace(0, n - 1, min(n, _MAX_ROWS)).astype(np.int64)
    probabilities = stream.probabilities[rows]
    before = count_shares(test.labels, len(reference.class_names))
    by_em = estimate_shares_by_em(test, probabilities)
    by_bbse = estimate_shares_by_bbse(test, probabilities)
    change = by_em - before
    distance = float(np.abs(change).sum() / 2)
    most = np.argsort(-np.abs(change), kind="stable")[:3]
    moves = ", ".join(f"{reference.class_names[i]} {before[i]:.1%} to {by_em[i]:.1%}" for i in most)
    text = f"Estimated shares of the classes moved by {distance:.1%} in all: {moves}."
    names = reference.class_names
    details = {
        name: dict(zip(names, shares.round(4).tolist(), strict=True))
        for name, shares in (("before", before), ("em", by_em), ("bbse", by_bbse))
    }
    error = 2 * (0.25 * (1 / len(rows) + 1 / len(test))) ** 0.5
    limit = f"{len(rows):,} predictions show changes of a class's share from about {error:.1%} on."
    return [Finding("label_shift", KIND, "silent", text, n, distance, None, limit, details)]
