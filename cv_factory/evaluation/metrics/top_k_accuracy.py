"""Top-k accuracy: the share of images whose true class is among the k most probable."""

from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.metrics import ScoredImages

MORE_IS_BETTER = True


def compute(images: ScoredImages) -> float:
    """Average over the images; undefined where there are no more classes than k."""
    return float(m.is_in_top_k(images.labels, images.probabilities, images.top_k).mean())
