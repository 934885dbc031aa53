"""Macro recall: the mean of the classes' recall."""

from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.metrics import ScoredImages

MORE_IS_BETTER = True


def compute(images: ScoredImages) -> float:
    """Average without weights."""
    return m.macro_recall(images.confusion)
