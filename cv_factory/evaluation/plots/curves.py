"""ROC and precision-recall curves, one class against the rest, as PNG."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.plots.style import GREY, get_class_color, render_png, shorten

_MAX_CURVES = 10


def class_curves(
    kind: Literal["ROC", "precision-recall"],
    labels: m.Ints,
    probabilities: m.Floats,
    class_names: Sequence[str],
) -> bytes:
    """Draw a curve for each class, those with the least area if there are more than ten.

    Classes without images have none; of two classes the second alone has one.

    Args:
        kind: Which curve.
        labels: True classes, int64 ``(N,)``.
        probabilities: Float ``(N, K)``.
        class_names: K names.

    Returns:
        PNG.
    """
    classes = [1] if len(class_names) == 2 else list(range(len(class_names)))
    plans = zip(classes, m.rank_plans(labels, probabilities), strict=True)
    once = np.ones((len(labels), 1))
    is_roc = kind == "ROC"
    curves = []
    for index, plan in plans:
        area = float(m.weighted_areas(plan, once)[0 if is_roc else 1][0])
        if not np.isnan(area):
            curves.append((area, index, *(_roc(plan) if is_roc else _precision_recall(plan))))
    curves.sort(key=lambda curve: curve[:2])
    with render_png(6.2, 4.6) as (figure, png):
        axis = figure.subplots()
        if is_roc:
            axis.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
        for area, index, x, y in curves[:_MAX_CURVES]:
            color = get_class_color(index / max(len(class_names) - 1, 1))
            label = f"{shorten(class_names[index], 24)} ({area:.3f})"
            axis.plot(x, y, color=color, linewidth=1.4, label=label)
        names = ("false positive rate", "true positive rate") if is_roc else ("recall", "precision")
        title = "ROC" if is_roc else "Precision and recall"
        if len(curves) > _MAX_CURVES:
            title += f": the {_MAX_CURVES} worst of {len(curves)} classes"
        axis.set(xlabel=names[0], ylabel=names[1], xlim=(-0.01, 1.01), ylim=(0, 1.02), title=title)
        axis.grid()
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="class (area)")
    return png.getvalue()


def _roc(plan: m.RankPlan) -> tuple[m.Doubles, m.Doubles]:
    """Return false and true positive rates at each image of the class, from (0, 0) to (1, 1)."""
    n_negative = len(plan.order) - len(plan.positives)
    false = (plan.down_to - plan.positives_down_to) / n_negative
    true = plan.positives_down_to / len(plan.positives)
    return np.r_[0.0, false, 1.0], np.r_[0.0, true, 1.0]


def _precision_recall(plan: m.RankPlan) -> tuple[m.Doubles, m.Doubles]:
    """Return recall and precision at each image of the class."""
    recall = plan.positives_down_to / len(plan.positives)
    return recall, plan.positives_down_to / plan.down_to
