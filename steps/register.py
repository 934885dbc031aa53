"""Step ``register``: judge the evaluated predictor by the gates, register and stage it."""

from typing import Annotated

from zenml import get_step_context, step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.config.gates import GateConfig
from cv_factory.config.register import RegisterConfig
from cv_factory.config.train import TrainConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.data.validation.report import DataReport
from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.evaluation.registration import Registration
from cv_factory.inference.predictor import Predictor
from cv_factory.inference.reference import Reference
from cv_factory.training.search.result import SearchResult
from cv_factory.training.trained_model import TrainedModel


@step(experiment_tracker=True, enable_cache=False)
def register(
    predictor: Predictor,
    evaluation: Evaluation,
    trained_model: TrainedModel,
    dataset: ImageDataset,
    split: Split,
    data_report: DataReport,
    gates: list[GateConfig],
    evaluate: EvaluateConfig,
    train: TrainConfig,
    config: RegisterConfig,
    lineage: dict[str, str],
    reference: Reference,
    search_result: SearchResult | None = None,
) -> Annotated[Registration, "registration"]:
    """Register a candidate. Never cached: its verdict depends on what is in production."""
    from registry.candidate import RegistrationCandidate
    from registry.register import register_candidate
    from registry.run_reference import build_run_reference

    settings = (search_result.train if search_result is not None else train).resolve(
        len(split.train)
    )
    candidate = RegistrationCandidate(
        predictor,
        evaluation,
        trained_model,
        dataset,
        split,
        data_report,
        settings,
        config.card,
        reference,
    )
    run = build_run_reference(get_step_context())
    return register_candidate(candidate, gates, evaluate, config, lineage, run)
