"""A predictor with its evidence: of the running pipeline, or loaded for a registered version."""

from dataclasses import dataclass, field

from zenml.models import ModelVersionResponse

from cv_factory.config.card import CardConfig
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
class RegistrationCandidate:
    """A predictor with everything that decides on its registration and shows on its card."""

    predictor: Predictor
    evaluation: Evaluation
    trained: TrainedModel
    dataset: ImageDataset
    split: Split
    report: DataReport
    settings: TrainConfig
    card: CardConfig = field(default_factory=CardConfig)


def load_candidate(version: ModelVersionResponse) -> RegistrationCandidate:
    """Load a version's candidate from the artifacts and the run that are linked to it.

    Raises:
        ArtifactError: One of them was deleted or is damaged.
    """
    parameters = step_parameters(versions.training_run(version))
    return RegistrationCandidate(
        predictor=versions.load_predictor(version),
        evaluation=versions.load_linked_artifact(version, "evaluation", Evaluation),
        trained=versions.load_linked_artifact(version, "trained_model", TrainedModel),
        dataset=versions.load_linked_artifact(version, "dataset", ImageDataset),
        split=versions.load_linked_artifact(version, "split", Split),
        report=versions.load_linked_artifact(version, "data_report", DataReport),
        settings=TrainConfig.model_validate(parameters["train"]["config"]),
        card=CardConfig.model_validate(version.run_metadata.get(versions.CARD, {})),
    )
