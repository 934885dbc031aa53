"""Expected calibration error. C. Guo et al., On Calibration of Modern Neural Networks, 2017."""

from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.metrics import ScoredImages

MORE_IS_BETTER = False


def compute(images: ScoredImages) -> float:
    """Average the distance between confidence and accuracy over bins of confidence."""
    return m.expected_calibration_error(images.labels, images.probabilities, images.n_bins)
