"""Log loss: the mean negative log probability of the true class."""

from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.metrics import ScoredImages

MORE_IS_BETTER = False


def compute(images: ScoredImages) -> float:
    """Average over the images."""
    return m.log_loss(images.labels, images.probabilities)
