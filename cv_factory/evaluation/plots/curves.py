"""ROC and precision-recall curves, one class against the rest, as PNG."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.plots.fonts import writable_names
from cv_factory.evaluation.plots.style import GREY, draw_once, get_class_color, render_png, shorten

_MAX_CURVES = 10


@draw_once
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
    points = roc_points if is_roc else precision_recall_points
    curves = []
    for index, plan in plans:
        area = float(m.weighted_areas(plan, once)[0 if is_roc else 1][0])
        if not np.isnan(area):
            curves.append((area, index, *points(plan)))
    curves.sort(key=lambda curve: curve[:2])
    names = writable_names(class_names)
    with render_png(6.2, 4.6) as (figure, png):
        axis = figure.subplots()
        if is_roc:
            axis.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
        for area, index, x, y in curves[:_MAX_CURVES]:
            color = get_class_color(index / max(len(class_names) - 1, 1))
            # The area first, for matplotlib shows no label that begins with "_".
            label = f"{area:.3f}  {shorten(names[index], 24)}"
            axis.plot(x, y, color=color, linewidth=1.4, label=label)
        axes = ("false positive rate", "true positive rate") if is_roc else ("recall", "precision")
        title = "ROC" if is_roc else "Precision and recall"
        if len(curves) > _MAX_CURVES:
            title += f": the {_MAX_CURVES} worst of {len(curves)} classes"
        axis.set(xlabel=axes[0], ylabel=axes[1], xlim=(-0.01, 1.01), ylim=(0, 1.02), title=title)
        axis.grid()
        if curves:
            axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="area, class")
    return png.getvalue()


def roc_points(plan: m.RankPlan) -> tuple[m.Doubles, m.Doubles]:
    """Return false and true positive rates from (0, 0) to (1, 1), float64 ``(2 P + 2,)`` each.

    Each image of the class gives the points above and below it; between them lie those with the
    same score. The area under the straight lines is the ROC AUC.
    """
    images = np.column_stack([plan.above, plan.down_to]).ravel()
    positives = np.column_stack([plan.positives_above, plan.positives_down_to]).ravel()
    false = (images - positives) / (len(plan.order) - len(plan.positives))
    return np.r_[0.0, false, 1.0], np.r_[0.0, positives / len(plan.positives), 1.0]


def precision_recall_points(plan: m.RankPlan) -> tuple[m.Doubles, m.Doubles]:
    """Return recall and precision at each image of the class, from recall 0 on."""
    recall = plan.positives_down_to / len(plan.positives)
    precision = plan.positives_down_to / plan.down_to
    return np.r_[0.0, recall], np.r_[precision[:1], precision]
