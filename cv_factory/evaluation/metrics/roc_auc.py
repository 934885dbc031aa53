"""ROC AUC: one-vs-rest, macro; of class 1 for two classes."""

from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.metrics import ScoredImages

MORE_IS_BETTER = True


def compute(images: ScoredImages) -> float:
    """Average the areas under the classes' curves."""
    return m.roc_auc(images.labels, images.probabilities)
