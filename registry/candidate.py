"""A predictor with its evidence: of the running pipeline, or loaded for a registered version."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter
from zenml.models import ModelVersionResponse

from cv_factory.config.card import CardConfig
from cv_factory.config.model import ModelConfig
from cv_factory.config.train import TrainConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.data.validation.report import DataReport
from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.inference.predictor import Predictor
from cv_factory.inference.reference import Reference
from cv_factory.training.search.result import SearchResult
from cv_factory.training.trained_model import TrainedModel
from registry import versions
from registry.run_reference import step_parameters


@dataclass(frozen=True)
class RegistrationCandidate:
    """A predictor with everything that decides on its registration and shows on its card.

    ``settings`` are those of its training, with the batch size that it chose if none was given.
    ``reference`` is None where an earlier release trained it.
    """

    predictor: Predictor
    evaluation: Evaluation
    trained: TrainedModel
    dataset: ImageDataset
    split: Split
    report: DataReport
    settings: TrainConfig
    card: CardConfig = field(default_factory=CardConfig)
    reference: Reference | None = None


def load_candidate(version: ModelVersionResponse) -> RegistrationCandidate:
    """Load a version's candidate from the artifacts and the run that are linked to it.

    Raises:
        ArtifactError: One of them was deleted or is damaged.
    """
    _, settings = load_training_settings(version, step_parameters(versions.training_run(version)))
    split = versions.load_linked_artifact(version, "split", Split)
    return RegistrationCandidate(
        predictor=versions.load_predictor(version),
        evaluation=versions.load_linked_artifact(version, "evaluation", Evaluation),
        trained=versions.load_linked_artifact(version, "trained_model", TrainedModel),
        dataset=versions.load_linked_artifact(version, "dataset", ImageDataset),
        split=split,
        report=versions.load_linked_artifact(version, "data_report", DataReport),
        card=CardConfig.model_validate(version.run_metadata.get(versions.CARD, {})),
        settings=settings.resolve(len(split.train)),
        reference=versions.load_reference(version),
    )


def load_training_settings(
    version: ModelVersionResponse, parameters: Mapping[str, Any]
) -> tuple[ModelConfig, TrainConfig]:
    """Return the settings that a version was trained with: its search's best, or the configured.

    Args:
        version: The version.
        parameters: Parameters of its run's steps, by step.

    Raises:
        ArtifactError: The result of its search was deleted or is damaged.
    """
    if "search" in parameters:
        result = versions.load_linked_artifact(version, "search_result", SearchResult)
        return result.model, result.train
    adapter: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)
    train = parameters["train"]
    return adapter.validate_python(train["model"]), TrainConfig.model_validate(train["config"])
