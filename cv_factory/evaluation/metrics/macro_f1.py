"""Macro F1: the mean of the classes' F1."""

from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.metrics import ScoredImages

MORE_IS_BETTER = True


def compute(images: ScoredImages) -> float:
    """Average without weights."""
    return m.macro_f1(images.confusion)
