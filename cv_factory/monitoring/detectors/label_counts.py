"""Which classes are predicted more or less often: chi-squared tests of their counts.

The tests hold for one look each: they explain what ``martingale`` found, and are no alarm.
"""

from typing import TYPE_CHECKING, Any, Literal

from cv_factory.monitoring.detectors._disjoint import (
    ExplanationConfig,
    describe_parts,
    split_window,
)
from cv_factory.monitoring.finding import Finding

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cv_factory.inference.reference import Reference
    from cv_factory.monitoring.window import Window

KIND: Literal["drift"] = "drift"
#: Fewer expected predictions of a class are counted with the other rare ones (Cochran 1954).
_MIN_EXPECTED = 5


class LabelCountsConfig(ExplanationConfig):
    """Classes that are predicted more or less often; explains, and is no alarm."""


def detect(reference: "Reference", window: "Window", config: LabelCountsConfig) -> list[Finding]:
    """Return one finding that names the classes of the last part."""
    import numpy as np

    stream, n_classes = window.distinct(), len(reference.class_names)
    n = len(stream)
    if n < config.min_predictions:
        text = f"{n:,} predictions of {config.min_predictions:,} needed."
        return [Finding("label_counts", KIND, "not_enough_evidence", text, n)]
    expected = np.bincount(reference.test.predicted, minlength=n_classes)
    parts = split_window(stream, config.part_size)
    values: list[dict[str, Any]] = []
    for part in parts:
        counts = np.bincount(stream.predicted[part], minlength=n_classes)
        p_value = min(1.0, _p_value(expected, counts) * len(parts))
        change = counts / counts.sum() - expected / expected.sum()
        names = [reference.class_names[i] for i in np.argsort(-np.abs(change))[:3]]
        values.append({"p_value": p_value, "classes": names, "shares": change.round(4).tolist()})
    last, size = values[-1], parts[-1].stop - parts[-1].start
    is_different = last["p_value"] < config.significance
    what = f"differ, most in {', '.join(last['classes'])}" if is_different else "do not differ"
    text = (
        f"Counts of the predicted classes among the last {size:,} {what} (corrected p "
        f"{last['p_value']:.2g}); this explains, and decides nothing."
    )
    rise = 3.5 * (0.25 * (1 / size + 1 / len(reference.test))) ** 0.5
    limit = f"{size:,} predictions show changes of a class's share from about {rise:.1%} on."
    details = {"parts": describe_parts(stream, parts, values)}
    return [Finding("label_counts", KIND, "silent", text, n, None, None, limit, details)]


def _p_value(expected: "npt.NDArray[np.int64]", counts: "npt.NDArray[np.int64]") -> float:
    """Return the p-value of equal shares in both, int64 ``(K,)`` each, rare classes as one."""
    import numpy as np
    from scipy.stats import chi2_contingency

    table = np.stack([expected, counts])
    total = table.sum()
    least = table.sum(axis=0) * table.sum(axis=1).min() / total
    is_rare = least < _MIN_EXPECTED
    merged = np.concatenate([table[:, ~is_rare], table[:, is_rare].sum(axis=1)[:, None]], axis=1)
    merged = merged[:, merged.sum(axis=0) > 0]
    return float(chi2_contingency(merged, correction=False).pvalue) if merged.shape[1] > 1 else 1.0
