"""Brier score: the mean squared distance between probabilities and truth."""

from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.metrics import ScoredImages

MORE_IS_BETTER = False


def compute(images: ScoredImages) -> float:
    """Average over the images."""
    return m.brier(images.labels, images.probabilities)
