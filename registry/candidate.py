"""A predictor with everything that speaks for or against it, as it was trained or from storage."""

from dataclasses import dataclass

from zenml.models import ModelVersionResponse

from cv_factory.config.train import TrainConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.data.validation.report import DataReport
from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.inference.predictor import Predictor
from cv_factory.training.trained_model import TrainedModel
from registry import versions
from registry.run_reference import step_parameters


@dataclass(frozen=True)
class Candidate:
    """A predictor, and everything that speaks for or against it."""

    predictor: Predictor
    evaluation: Evaluation
    trained: TrainedModel
    dataset: ImageDataset
    split: Split
    report: DataReport
    settings: TrainConfig


def stored_candidate(version: ModelVersionResponse) -> Candidate:
    """Load a version's candidate from the artifacts and the run that are linked to it.

    Raises:
        ArtifactError: One of them is gone or damaged.
    """
    told = step_parameters(versions.run_of(version))
    return Candidate(
        predictor=versions.load_predictor(version),
        evaluation=versions.load_artifact(version, "evaluation", Evaluation),
        trained=versions.load_artifact(version, "trained_model", TrainedModel),
        dataset=versions.load_artifact(version, "dataset", ImageDataset),
        split=versions.load_artifact(version, "split", Split),
        report=versions.load_artifact(version, "data_report", DataReport),
        settings=TrainConfig.model_validate(told["train"]["config"]),
    )
