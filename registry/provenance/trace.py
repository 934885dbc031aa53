"""Chain from a predictor back to its images, collected from lineage, verified and reproduced."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from zenml.models import ModelVersionResponse

from cv_factory.artifacts.files import fingerprint
from cv_factory.config.export import CalibrationConfig, ExportConfig, FamiliarityConfig
from cv_factory.config.features import FeaturesConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import TransformConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.features.backbone import Backbone
from cv_factory.features.image_features import ImageFeatures
from cv_factory.inference.predictor import Predictor
from cv_factory.training.trained_model import TrainedModel
from cv_factory.transforms.fitted import FittedTransform
from registry import versions
from registry.audit.log import AuditEntry
from registry.candidate import load_training_settings
from registry.lineage import package_versions
from registry.model_registry import ModelRegistry
from registry.provenance.statement import (
    BACKBONE_WEIGHTS,
    add_approval,
    package_lineage,
    rebuild_statement,
)

_ARTIFACTS = ("predictor", "evaluation", "trained_model", "transform", "split", "dataset")


@dataclass(frozen=True)
class TraceLink:
    """One element of the chain, with its facts by name."""

    name: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class TraceCheck:
    """Comparison of a stored thing with the lineage; its detail is one line, or several."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Trace:
    """Chain of a version.

    Attributes:
        version: The version.
        links: From the predictor to the approver.
        statement: In-toto statement about the predictor, derived from what is stored.
        approval: Its approval; None if it has none.
    """

    version: ModelVersionResponse
    links: tuple[TraceLink, ...]
    statement: Mapping[str, Any]
    approval: AuditEntry | None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Parameters of the run's steps, by step."""
        definition = self.statement["predicate"]["buildDefinition"]
        parameters: Mapping[str, Any] = definition["externalParameters"]
        return parameters

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The statement, with the approval if there is one."""
        return add_approval(self.statement, self.approval) if self.approval else self.statement


def collect_trace(registry: ModelRegistry, number: int) -> Trace:
    """Collect a version's chain from ZenML and the audit log.

    Raises:
        RegistryError: There is no such version.
        ArtifactError: An artifact or the run is no longer linked to it.
    """
    version = versions.get_version(registry.model_name, number)
    metadata = {key: str(value) for key, value in version.run_metadata.items()}
    approval = registry.approval(version)
    statement = rebuild_statement(version)
    links = (
        *(_artifact_link(version, name, metadata) for name in _ARTIFACTS),
        *_backbone_links(statement),
        TraceLink(
            "config",
            {"sha256": metadata.get("config", "?"), "run": metadata.get("pipeline_run", "?")},
        ),
        TraceLink("commit", {k: metadata.get(k, "?") for k in ("git_commit", "git_dirty")}),
        TraceLink("packages", package_lineage(metadata)),
        TraceLink("stack", {"name": metadata.get("stack", "?")}),
        TraceLink("approver", _approver(approval)),
    )
    return Trace(version, links, statement, approval)


def verify(trace: Trace) -> Iterator[TraceCheck]:
    """Compute every hash again from the stored artifacts, and compare it with the lineage."""
    version = trace.version
    predictor = versions.load_predictor(version)
    contract = predictor.contract.fingerprints
    yield _compare("predictor", versions.predictor_fingerprint(version), predictor.fingerprint)
    dataset = versions.load_linked_artifact(version, "dataset", ImageDataset)
    split = versions.load_linked_artifact(version, "split", Split)
    yield _check_pixels(dataset)
    yield _compare("dataset", contract.get("data", ""), dataset.fingerprint)
    yield _compare("split's dataset", dataset.fingerprint, split.dataset_fingerprint)
    transform = versions.load_linked_artifact(version, "transform", FittedTransform)
    yield _compare("transform", contract.get("transform", ""), transform.fingerprint)
    trained = versions.load_linked_artifact(version, "trained_model", TrainedModel)
    yield _compare("model", contract.get("model", ""), trained.fingerprint)
    evaluation = versions.load_linked_artifact(version, "evaluation", Evaluation)
    yield _compare(
        "evaluation's predictor", predictor.fingerprint, evaluation.predictor_fingerprint
    )
    if predictor.contract.backbone is not None:
        name = "fine_tuned_backbone" if "fine_tune" in trace.parameters else "backbone"
        backbone = versions.load_linked_artifact(version, name, Backbone)
        yield _compare("backbone", predictor.contract.backbone.fingerprint, backbone.fingerprint)
    golden = predictor.golden
    probabilities = predictor.predict(golden.images).probabilities
    difference = float(np.abs(probabilities - golden.probabilities).max())
    yield TraceCheck("golden samples", difference <= 1e-5, f"differ by {difference:.1e} at most")
    if trace.approval is not None:
        approved = str(trace.approval.detail["provenance"])
        yield _compare("provenance that was approved", approved, fingerprint(dict(trace.statement)))


def reproduce(trace: Trace) -> TraceCheck:
    """Fit, train and export again from the stored images and settings, and compare the bytes.

    Exact on an equal machine with equal code and packages; a difference names those that changed.
    """
    stored, again = versions.load_predictor(trace.version), _train_again(trace)
    check = _compare(
        "predictor.onnx, trained again",
        hashlib.sha256(stored.graph).hexdigest(),
        hashlib.sha256(again.graph).hexdigest(),
    )
    if check.ok:
        return check
    changes = _changed_packages(trace.version)
    if stored.contract.fingerprints.get("code") != again.contract.fingerprints["code"]:
        changes.insert(0, f"code (then: commit {trace.version.run_metadata.get('git_commit')})")
    changed = f"changed since: {', '.join(changes) or 'neither code nor packages'}"
    return replace(check, detail=f"{check.detail}\n{changed}")


def _train_again(trace: Trace) -> Predictor:
    from cv_factory.export.onnx_graph import export_training_run
    from cv_factory.export.quantize import quantize
    from cv_factory.training.train import train
    from cv_factory.transforms.fitted import fit_transform

    parameters = trace.parameters
    dataset = versions.load_linked_artifact(trace.version, "dataset", ImageDataset)
    split = versions.load_linked_artifact(trace.version, "split", Split)
    features = _compute_features_again(trace, dataset, split)
    transform_config = TransformConfig.model_validate(parameters["fit_transform"]["config"])
    transform = fit_transform(dataset, split.train, transform_config, features)
    model, config = load_training_settings(trace.version, parameters)
    if config.precision == "auto":
        # What it stood for then: another processor would choose another.
        stored = versions.load_linked_artifact(trace.version, "trained_model", TrainedModel)
        config = config.model_copy(update={"precision": stored.precision})
    trained = train(dataset, split, transform, model, config, features=features)
    export = parameters["export"]
    calibration = CalibrationConfig.model_validate(export.get("calibration", {}))
    # Versions of before this section have no score.
    familiarity = FamiliarityConfig.model_validate(export.get("familiarity", {"method": "none"}))
    float_predictor = export_training_run(
        trained,
        transform,
        dataset,
        split,
        calibration,
        familiarity,
        export.get("config_fingerprint", ""),
        features,
    )
    export_config = ExportConfig.model_validate(export.get("config", {}))
    return quantize(float_predictor, dataset, split, export_config)


def _compute_features_again(
    trace: Trace, dataset: ImageDataset, split: Split
) -> ImageFeatures | None:
    parameters = trace.parameters
    if "export_backbone" not in parameters:
        return None
    from cv_factory.features.compute import compute_features
    from cv_factory.features.export import export_backbone
    from cv_factory.training.fine_tune import fine_tune

    exported = parameters["export_backbone"]
    backbone = export_backbone(exported["name"], exported["input_size"])
    is_mirrored = parameters["compute_features"]["horizontal_flip"]
    features = compute_features(dataset, backbone, horizontal_flip=is_mirrored)
    if "fine_tune" not in parameters:
        return features
    settings = parameters["fine_tune"]
    config = FeaturesConfig.model_validate(settings["config"])
    stored = versions.load_linked_artifact(trace.version, "fine_tuned_backbone", Backbone)
    precision = stored.fine_tuned_precision or settings["train"].get("precision", "auto")
    train_config = TrainConfig.model_validate({**settings["train"], "precision": precision})
    tuned = fine_tune(dataset, split, features, config, train_config)
    return compute_features(dataset, tuned, horizontal_flip=is_mirrored)


def _changed_packages(version: ModelVersionResponse) -> list[str]:
    return [
        f"{key.removeprefix(versions.PACKAGE_PREFIX)} {version.run_metadata.get(key)} → {now}"
        for key, now in package_versions().items()
        if version.run_metadata.get(key) != now
    ]


def _artifact_link(
    version: ModelVersionResponse, name: str, version_metadata: Mapping[str, str]
) -> TraceLink:
    artifact = versions.linked_artifact(version, name)
    metadata = artifact.run_metadata
    facts = {"artifact": str(artifact.id), "where": artifact.uri}
    hashes = ("fingerprint", "data_fingerprint", "predictor_fingerprint")
    facts |= {key: str(metadata[key]) for key in hashes if key in metadata}
    if name == "dataset":
        facts["source"] = str(metadata.get("source", "?"))
    if name == "evaluation":
        facts["summary"] = version_metadata.get("evaluation", "?")
    if name == "split":
        facts["sha256 of its ids"] = version_metadata.get("split_fingerprint", "?")
    return TraceLink(name, facts)


def _backbone_links(statement: Mapping[str, Any]) -> Iterator[TraceLink]:
    """Yield the pretrained backbone of a predictor, where it has one."""
    for dependency in statement["predicate"]["buildDefinition"]["resolvedDependencies"]:
        if dependency.get("name") == BACKBONE_WEIGHTS:
            facts = dependency["annotations"].items()
            named = {key.removeprefix("cvfactory_"): str(value) for key, value in facts}
            weights = {"sha256 of the weights": dependency["digest"]["sha256"]}
            yield TraceLink("backbone", named | weights)


def _approver(approval: AuditEntry | None) -> dict[str, str]:
    if approval is None:
        return {"approved by": "nobody"}
    return {"who": approval.who, "when": approval.when, "why": approval.why}


def _check_pixels(dataset: ImageDataset) -> TraceCheck:
    """Hash every image again: the dataset's fingerprint is computed from these hashes."""
    stored = dataset.manifest["pixels_sha256"].tolist()
    wrong = sum(
        hashlib.sha256(np.ascontiguousarray(image).data).hexdigest() != sha256
        for image, sha256 in zip(dataset.images, stored, strict=True)
    )
    return TraceCheck(
        "pixels", wrong == 0, f"{wrong} of {len(dataset)} images differ from their hash"
    )


def _compare(name: str, expected: str, actual: str) -> TraceCheck:
    if expected == actual:
        return TraceCheck(name, True, actual)
    detail = f"lineage says\n{expected or 'nothing'}\nstored is\n{actual or 'nothing'}"
    return TraceCheck(name, False, detail)
