"""Judges an evaluated predictor and registers it: once a predictor, on evidence, with lineage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from zenml.models import ModelVersionResponse

from cv_factory.config import EvaluateConfig, GateConfig, TrainConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.report import DataReport
from cv_factory.data.split import Split
from cv_factory.errors import CVFactoryError
from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.evaluation.gates import GateVerdict, all_passed, judge
from cv_factory.evaluation.model_card import render_html, render_markdown
from cv_factory.evaluation.registration import Registration
from cv_factory.evaluation.scoring import evaluate_predictor
from cv_factory.inference.predictor import Predictor
from cv_factory.training.trained_model import TrainedModel
from registry import versions
from registry.card import card_content
from registry.lineage import package_versions
from registry.mlflow_mirror import MirroredVersion, mirror

#: Stages that a training run may change; production and archived are other commands' business.
_OPEN_STAGES = ("none", "staging")


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


@dataclass(frozen=True)
class RunReference:
    """Where the candidate's artifacts and metrics are stored.

    Attributes:
        run_id: The ZenML pipeline run.
        run_name: Its name.
        artifact_version_ids: Artifacts to link, by name.
        predictor_uri: Where the predictor lies.
        mlflow_run_id: The MLflow run that trained the model; empty if unknown.
    """

    run_id: UUID
    run_name: str
    artifact_version_ids: Mapping[str, UUID]
    predictor_uri: str
    mlflow_run_id: str


def register_candidate(
    candidate: Candidate,
    gates: Sequence[GateConfig],
    evaluate: EvaluateConfig,
    model_name: str,
    lineage: Mapping[str, str],
    run: RunReference,
) -> Registration:
    """Judge the candidate, register it if it is new, and set the stage that the gates allow.

    A predictor with an equal fingerprint is registered once; running again only brings its stage
    in line with the present gates. Without any gate nothing is proven, so nothing is staged.

    Raises:
        StackError: The active stack cannot mirror to MLflow.
        ArtifactError: The production version's predictor is damaged.
    """
    verdicts = _judge(candidate, gates, evaluate, model_name)
    fingerprint = candidate.predictor.fingerprint
    version = versions.find_version(model_name, fingerprint)
    is_new = version is None
    if version is None:
        version = versions.create_version(model_name, fingerprint, _description(candidate))
    facts = _lineage(candidate, lineage, run)
    wanted = "staging" if verdicts and all_passed(verdicts) else "none"
    stored = version.run_metadata.get("lineage_complete")
    if stored is None:
        versions.link_artifacts(version, run.artifact_version_ids.values(), run.run_id)
        metrics = {f"test_{name}": value for name, value in _metrics(candidate).items()}
        versions.describe_version(version, {**facts, **metrics, "predictor": fingerprint})
    stage = _bring_to_stage(version, wanted)
    if stored != stage:
        _mirror(candidate, model_name, version.number, stage, facts, run)
        # Written last: a run that was killed before this line is completed by the next one.
        versions.describe_version(version, {"lineage_complete": stage})
    content = card_content(candidate, model_name, str(version.number), stage, verdicts, facts)
    return Registration(
        model_name=model_name,
        version=version.number,
        stage=stage,
        is_new=is_new,
        predictor_fingerprint=fingerprint,
        verdicts=verdicts,
        lineage=facts,
        card_markdown=render_markdown(content),
        card_html=render_html(content),
    )


def _judge(
    candidate: Candidate, gates: Sequence[GateConfig], config: EvaluateConfig, model_name: str
) -> tuple[GateVerdict, ...]:
    """Judge against the bounds, and against production on the same test images where asked."""
    relative = any(gate.max_drop_vs_production is not None for gate in gates)
    production = versions.find_production(model_name) if relative else None
    if production is None:
        return judge(gates, candidate.evaluation, None)
    predictor = versions.load_predictor(production)
    if predictor.fingerprint == candidate.predictor.fingerprint:
        return judge(gates, candidate.evaluation, candidate.evaluation)
    try:
        scored = evaluate_predictor(predictor, candidate.dataset, candidate.split.test, config)
    except (CVFactoryError, ValueError) as error:
        return judge(gates, candidate.evaluation, None, production_problem=str(error))
    return judge(gates, candidate.evaluation, scored)


def _bring_to_stage(version: ModelVersionResponse, wanted: str) -> str:
    """Set the stage where a training run may; return the stage that holds now."""
    current = version.stage or "none"
    if current not in _OPEN_STAGES or current == wanted:
        return current
    versions.set_stage(version, wanted)
    return wanted


def _mirror(
    candidate: Candidate,
    model_name: str,
    version: int,
    stage: str,
    facts: Mapping[str, str],
    run: RunReference,
) -> None:
    mirror(
        MirroredVersion(
            model_name=model_name,
            version=version,
            stage=stage,
            predictor_uri=run.predictor_uri,
            run_id=run.mlflow_run_id,
            metrics=_metrics(candidate),
            tags=facts,
        )
    )


def _metrics(candidate: Candidate) -> dict[str, float]:
    metrics = candidate.evaluation.metrics.items()
    return {name: metric.value for name, metric in metrics if metric.value is not None}


def _lineage(candidate: Candidate, lineage: Mapping[str, str], run: RunReference) -> dict[str, str]:
    contract = candidate.predictor.contract
    hashes = {f"{name}_fingerprint": value for name, value in contract.fingerprints.items()}
    # The run's configuration with its gates, not only what shaped the predictor.
    return {**hashes, **lineage, "pipeline_run": run.run_name, **package_versions()}


def _description(candidate: Candidate) -> str:
    return f"{candidate.trained.config.name} trained on {candidate.dataset.source}"
