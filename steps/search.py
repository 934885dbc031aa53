"""Step ``search``: try models and settings on folds of the training images."""

from typing import Annotated

from zenml import log_metadata, step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.model import ModelConfig
from cv_factory.config.search import SearchConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import TransformConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.features.image_features import ImageFeatures
from cv_factory.training.search.result import SearchResult
from steps.caching import depends_on


@step(
    step_operator=True,
    experiment_tracker=True,
    cache_policy=depends_on("cv_factory.config.transform", "cv_factory.training.search.study"),
)
def search(
    dataset: ImageDataset,
    split: Split,
    transform: TransformConfig,
    model: ModelConfig,
    train: TrainConfig,
    config: SearchConfig,
    features: ImageFeatures | None = None,
) -> Annotated[SearchResult, "search_result"]:
    """Search, log every trial as a nested run, and resume an interrupted search."""
    from cv_factory.training.search.search_job import SearchJob
    from cv_factory.training.search.study import search as run_search
    from registry.mlflow.tracking import MLFLOW_RUN_KEY, active_run_id, log_trial
    from registry.study_journal import StudyJournal

    log_metadata(metadata={MLFLOW_RUN_KEY: active_run_id()}, infer_artifact=True)
    job = SearchJob(dataset, split, transform, model, train, config, features)
    return run_search(job, StudyJournal(job.key), log_trial)
