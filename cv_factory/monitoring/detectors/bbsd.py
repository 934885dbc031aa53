"""Which classes' probabilities differ: Kolmogorov-Smirnov tests with Bonferroni's correction.

Black-box shift detection: S. Rabanser et al., Failing Loudly, 2019 (arXiv 1810.11953). The tests
hold for one look each: they explain what ``martingale`` found, and are no alarm.
"""

from typing import TYPE_CHECKING, Any, Literal

from cv_factory.monitoring.detectors._disjoint import (
    ExplanationConfig,
    describe_parts,
    split_window,
)
from cv_factory.monitoring.finding import Finding

if TYPE_CHECKING:
    from cv_factory.inference.reference import Reference
    from cv_factory.monitoring.window import Window

KIND: Literal["drift"] = "drift"
#: Classes whose probabilities are tested: those that the test images are most often of.
_MAX_CLASSES = 100


class BBSDConfig(ExplanationConfig):
    """Classes whose probabilities differ; explains, and is no alarm."""


def detect(reference: "Reference", window: "Window", config: BBSDConfig) -> list[Finding]:
    """Return one finding that names the classes of the last part."""
    import numpy as np
    from scipy.stats import ks_2samp

    stream, test = window.distinct(), reference.test
    n = len(stream)
    if n < config.min_predictions:
        text = f"{n:,} predictions of {config.min_predictions:,} needed."
        return [Finding("bbsd", KIND, "not_enough_evidence", text, n)]
    counts = np.bincount(test.labels, minlength=len(reference.class_names))
    classes = np.sort(np.argsort(-counts, kind="stable")[:_MAX_CLASSES])
    parts = split_window(stream, config.part_size)
    n_tests = len(classes) * len(parts)
    values: list[dict[str, Any]] = []
    for part in parts:
        tests = [
            ks_2samp(test.probabilities[:, i], stream.probabilities[part, i], method="asymp")
            for i in classes
        ]
        corrected = np.minimum(1.0, np.array([t.pvalue for t in tests]) * n_tests)
        order = [int(i) for i in np.argsort(corrected, kind="stable")]
        differing = [i for i in order if corrected[i] < config.significance]
        values.append(
            {
                "distance": float(max(t.statistic for t in tests)),
                "p_value": float(corrected.min()),
                "classes": [reference.class_names[classes[i]] for i in differing],
            }
        )
    last = values[-1]
    size = parts[-1].stop - parts[-1].start
    what = f"differ in {', '.join(last['classes'][:5])}" if last["classes"] else "do not differ"
    text = (
        f"Probabilities of the last {size:,} predictions {what} (largest distance "
        f"{last['distance']:.3f}, corrected p {last['p_value']:.2g}); this explains, and decides "
        "nothing."
    )
    limit = _describe_limit(size, len(test), config.significance / n_tests)
    details = {"parts": describe_parts(stream, parts, values)}
    return [Finding("bbsd", KIND, "silent", text, n, last["distance"], None, limit, details)]


def _describe_limit(n: int, n_reference: int, significance: float) -> str:
    """Say which distance the test rejects, from Kolmogorov's distribution (Smirnov 1948)."""
    import math

    distance = math.sqrt(-math.log(significance / 2) / 2 * (1 / n + 1 / n_reference))
    return (
        f"{n:,} predictions against {n_reference:,} held-out images show distances of a "
        f"probability's distribution from about {distance:.2f} on."
    )
