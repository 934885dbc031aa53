"""Accuracy: the share of images whose most probable class is the true one."""

from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.metrics import ScoredImages

MORE_IS_BETTER = True


def compute(images: ScoredImages) -> float:
    """Divide the images on the diagonal of the confusion matrix by all."""
    return m.accuracy(images.confusion)
