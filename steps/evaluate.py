"""Step ``evaluate``: measure the exported predictor on the untouched test split."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.inference.predictor import Predictor
from cv_factory.inference.reference import Reference
from steps.caching import depends_on


@step(cache_policy=depends_on("cv_factory.evaluation.evaluate_predictor"))
def evaluate(
    predictor: Predictor,
    dataset: ImageDataset,
    split: Split,
    config: EvaluateConfig,
    float_predictor: Predictor | None = None,
    reference: Reference | None = None,
) -> Annotated[Evaluation, "evaluation"]:
    """Score the test images and measure; beside float32 where the predictor has fewer bits.

    Corrupted images are scored once: for the reference.
    """
    from cv_factory.evaluation.evaluate_predictor import evaluate_predictor

    return evaluate_predictor(predictor, dataset, split.test, config, float_predictor, reference)
