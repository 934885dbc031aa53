"""Judges an evaluated predictor, registers it once, with lineage, and stages it if it passed."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from zenml.client import Client
from zenml.models import ModelVersionResponse

from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.config.gates import GateConfig
from cv_factory.config.register import RegisterConfig
from cv_factory.errors import CVFactoryError
from cv_factory.evaluation.evaluate_predictor import rescore_predictor
from cv_factory.evaluation.gate_verdict import GateVerdict
from cv_factory.evaluation.gates import Evidence, judge, require_precision_gate
from cv_factory.evaluation.registration import Registration
from cv_factory.evaluation.reports.model_card import render_html, render_markdown
from registry import versions
from registry.audit.state import Policy
from registry.candidate import RegistrationCandidate
from registry.card_content import build_card_content
from registry.lineage import package_versions
from registry.mlflow.candidate_tracking import log_candidate, log_registration
from registry.mlflow.tracking import MLFLOW_RUN_KEY
from registry.model_registry import ModelRegistry
from registry.provenance.attestation import sign_statement
from registry.provenance.dsse import AttestationError
from registry.provenance.statement import build_statement
from registry.run_reference import RunReference
from registry.versions import RegistryError

logger = logging.getLogger(__name__)


def register_candidate(
    candidate: RegistrationCandidate,
    gates: Sequence[GateConfig],
    evaluate: EvaluateConfig,
    config: RegisterConfig,
    lineage: Mapping[str, str],
    run: RunReference,
) -> Registration:
    """Judge the candidate, register it if it is new, and set the stage that the gates allow.

    A predictor with an equal fingerprint is registered once; registering it again only updates its
    stage by the present gates. Without gates nothing is staged. The next run completes the
    registration of one that was killed.

    Raises:
        StackError: The active stack cannot mirror to MLflow.
        ArtifactError: The production version's predictor or the audit log is damaged.
        LogConflictError: Another run registered or staged at the same time.
    """
    model_name, fingerprint = config.model_name, candidate.predictor.fingerprint
    registry = ModelRegistry(model_name)
    registry.mirror.check_connection()
    registry.record_outside_changes(run.run_name)
    policy = _update_policy(registry, config, run)
    logger.info("Judging the predictor and registering it as %s.", model_name)
    if run.mlflow_run_id:
        log_candidate(run.mlflow_run_id, candidate, run.parameters)
    required = require_precision_gate(gates, candidate.predictor.contract.precision)
    verdicts = _judge(candidate, required, evaluate, registry)
    full_lineage = _full_lineage(candidate, lineage, run)
    provenance = build_statement(candidate.predictor, full_lineage, run.parameters)
    version, is_new = _find_or_create(registry, candidate, full_lineage, provenance, run)
    _store_statements(version, config)
    registry.record_registration(
        version, fingerprint, verdicts, run.run_name, needs_approval=policy.manual_approval
    )
    stage = registry.update_stage(version.number, run.run_name)
    version = versions.get_version(model_name, version.number)
    approval = registry.approval(version)
    overrides = registry.gate_standing(version.number).overrides
    logger.info("Writing the model card of version %s.", version.number)
    content = build_card_content(
        candidate, version, stage, verdicts, full_lineage, approval, overrides
    )
    registration = Registration(
        model_name=model_name,
        version=version.number,
        stage=stage,
        is_new=is_new,
        predictor_fingerprint=fingerprint,
        verdicts=verdicts,
        lineage=full_lineage,
        provenance=provenance,
        card_markdown=render_markdown(content),
        card_html=render_html(content),
    )
    if run.mlflow_run_id:
        log_registration(run.mlflow_run_id, content, registration)
    return registration


def _judge(
    candidate: RegistrationCandidate,
    gates: Sequence[GateConfig],
    config: EvaluateConfig,
    registry: ModelRegistry,
) -> tuple[GateVerdict, ...]:
    """Judge by absolute bounds and, for relative gates, by production on the same test images."""
    data_findings = {r.name: r.severity for r in candidate.report.expectations if not r.success}
    evidence = Evidence(candidate.evaluation, data_findings=data_findings, config=config)
    relative = any(gate.bound[0].endswith("vs_production") for gate in gates)
    if not relative:
        return judge(gates, evidence)
    try:
        production = registry.reference_version()
    except RegistryError as error:
        if registry.is_last_production(candidate.predictor.fingerprint):
            return judge(gates, replace(evidence, is_production=True))
        return judge(gates, replace(evidence, production_problem=str(error)))
    if production is None:
        return judge(gates, evidence)
    if versions.predictor_fingerprint(production) == candidate.predictor.fingerprint:
        return judge(gates, replace(evidence, is_production=True))
    predictor = versions.load_predictor(production)
    try:
        scored = rescore_predictor(predictor, candidate.dataset, candidate.split.test, config)
    except (CVFactoryError, ValueError) as error:
        return judge(gates, replace(evidence, production_problem=str(error)))
    return judge(gates, replace(evidence, production=scored))


def _update_policy(registry: ModelRegistry, config: RegisterConfig, run: RunReference) -> Policy:
    configured = Policy(config.manual_approval, tuple(config.approvers), config.separate_approver)
    policy = registry.update_policy(configured, run.run_name)
    if policy != configured:
        logger.warning(
            "The policy of %s stays as it is (%s): this run was configured with another (%s), and "
            "%s is no approver.",
            registry.model_name,
            policy,
            configured,
            registry.actor,
        )
    return policy


def _find_or_create(
    registry: ModelRegistry,
    candidate: RegistrationCandidate,
    lineage: Mapping[str, str],
    provenance: Mapping[str, Any],
    run: RunReference,
) -> tuple[ModelVersionResponse, bool]:
    """Return the complete version of a candidate, and whether it is new."""
    predictor = candidate.predictor.fingerprint
    present = registry.find_version(predictor)
    version = present or versions.create_version(
        registry.model_name, predictor, _description(candidate)
    )
    is_own = versions.predictor_fingerprint(version) == predictor
    if not is_own or not versions.is_complete(version):
        _complete_version(registry, version, candidate, lineage, provenance, run)
    elif version.get_artifact(versions.REFERENCE) is None:  # an earlier release registered it
        ids = run.artifact_version_ids
        reference = {name: ids[name] for name in ids.keys() & {versions.REFERENCE}}
        versions.link_artifacts(version, reference, None)
    return versions.get_version(registry.model_name, version.number), present is None


def _complete_version(
    registry: ModelRegistry,
    version: ModelVersionResponse,
    candidate: RegistrationCandidate,
    lineage: Mapping[str, str],
    provenance: Mapping[str, Any],
    run: RunReference,
) -> None:
    """Add artifacts, metadata, the signed statement and the mirror to a version."""
    versions.link_artifacts(version, run.artifact_version_ids, run.run_id)
    metrics = {
        f"{versions.METRIC_PREFIX}{name}": value for name, value in _metrics(candidate).items()
    }
    summary = {"predictor": candidate.predictor.fingerprint, "evaluation": _summary(candidate)}
    versions.add_metadata(version, {**lineage, **metrics, **summary})
    try:
        sign_statement(registry.model_name, version.number, provenance)
    except AttestationError as error:
        logger.warning(
            "%s version %s is not signed: %s", registry.model_name, version.number, error
        )
    registry.mirror.update_version(versions.get_version(registry.model_name, version.number))
    # Written last: the next run completes the version of a run that was killed before this line.
    versions.add_metadata(version, {versions.COMPLETE: True})


def _store_statements(version: ModelVersionResponse, config: RegisterConfig) -> None:
    """Store what people say of the model, for the cards of this version; warn of what is empty."""
    if missing := config.card.unanswered:
        logger.warning(
            "The model card does not state: %s. Set %s and run again: only the registration is "
            "repeated.",
            ", ".join(key.replace("_", " ") for key in missing),
            ", ".join(f"register.card.{key}" for key in missing),
        )
    statements = config.card.model_dump(exclude_defaults=True)
    if version.run_metadata.get(versions.CARD, {}) != statements:
        versions.add_metadata(version, {versions.CARD: statements})


def _summary(candidate: RegistrationCandidate) -> str:
    """Return the evaluation in one line."""
    accuracy = candidate.evaluation.metrics["accuracy"]
    line = f"accuracy {accuracy.value:.4f}"
    if accuracy.low is not None and accuracy.high is not None:
        line += f" ({accuracy.low:.4f} to {accuracy.high:.4f})"
    ranked = candidate.evaluation.ranked_slices
    if ranked:
        line += f"; worst slice {ranked[0].name}: {ranked[0].accuracy:.4f}"
    return line


def _metrics(candidate: RegistrationCandidate) -> dict[str, float]:
    metrics = candidate.evaluation.metrics.items()
    return {name: metric.value for name, metric in metrics if metric.value is not None}


def _full_lineage(
    candidate: RegistrationCandidate, lineage: Mapping[str, str], run: RunReference
) -> dict[str, str]:
    contract = candidate.predictor.contract
    hashes = {f"{name}_fingerprint": value for name, value in contract.fingerprints.items()}
    run_links = {versions.RUN: run.run_name, **run.urls}
    if run.mlflow_run_id:
        run_links[MLFLOW_RUN_KEY] = run.mlflow_run_id
    deployment = {"zenml_deployment": str(Client().zen_store.get_deployment_id())}
    return {**hashes, **lineage, **run_links, **deployment, **package_versions()}


def _description(candidate: RegistrationCandidate) -> str:
    return f"{candidate.trained.config.name} trained on {candidate.dataset.source}"
