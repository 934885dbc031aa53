"""Macro precision: the mean of the classes' precision."""

from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.metrics import ScoredImages

MORE_IS_BETTER = True


def compute(images: ScoredImages) -> float:
    """Average without weights; 0 for a class that is never predicted."""
    return m.macro_precision(images.confusion)
