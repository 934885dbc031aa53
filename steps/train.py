"""Step ``train``: train the model in a process of its own, where the step operator puts it."""

from typing import Annotated

from zenml import log_metadata, step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.model import ModelConfig
from cv_factory.config.train import TrainConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.features.image_features import ImageFeatures
from cv_factory.training.search.result import SearchResult
from cv_factory.training.trained_model import TrainedModel
from cv_factory.transforms.fitted import FittedTransform
from steps.caching import depends_on


@step(
    step_operator=True,
    experiment_tracker=True,
    cache_policy=depends_on("cv_factory.training.train"),
)
def train(
    dataset: ImageDataset,
    split: Split,
    transform: FittedTransform,
    model: ModelConfig,
    config: TrainConfig,
    search_result: SearchResult | None = None,
    features: ImageFeatures | None = None,
) -> Annotated[TrainedModel, "trained_model"]:
    """Train with the settings of the search's best trial, if any; log every epoch."""
    from cv_factory.training.train import train as train_model
    from registry.mlflow.tracking import MLFLOW_RUN_KEY, active_run_id, log_epoch, log_settings

    if search_result is not None:
        model, config = search_result.model, search_result.train
    config = config.resolve(len(split.train))
    log_metadata(metadata={MLFLOW_RUN_KEY: active_run_id()}, infer_artifact=True)
    log_settings({"model": model, "train": config})
    return train_model(dataset, split, transform, model, config, log_epoch, features)
