"""The chain from a predictor back to its images, from stored lineage; verified and reproduced."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from zenml.models import ModelVersionResponse

from cv_factory.artifacts.files import fingerprint
from cv_factory.config.export import CalibrationConfig, ExportConfig
from cv_factory.config.model import ModelConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import TransformConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.errors import ArtifactError
from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.training.trained_model import TrainedModel
from cv_factory.transforms.fitted import FittedTransform
from registry import versions
from registry.audit.log import Entry
from registry.lineage import package_versions
from registry.model_registry import ModelRegistry, fingerprint_of
from registry.provenance.statement import stored_statement, with_approval

_ARTIFACTS = ("predictor", "evaluation", "trained_model", "transform", "split", "dataset")
_BATCH = 1024


@dataclass(frozen=True)
class Link:
    """One thing in the chain, and what is known of it."""

    name: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Check:
    """Whether something stored is what the lineage says."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Trace:
    """A version's chain.

    Attributes:
        version: The version.
        links: From the predictor to the approver.
        statement: In-toto statement about the predictor, derived from what is stored.
        approval: Who signed it off; None if nobody did.
    """

    version: ModelVersionResponse
    links: tuple[Link, ...]
    statement: Mapping[str, Any]
    approval: Entry | None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What the run's steps were told, by step."""
        told: Mapping[str, Any] = self.statement["predicate"]["buildDefinition"][
            "externalParameters"
        ]
        return told

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The statement, with the approval if there is one."""
        return with_approval(self.statement, self.approval) if self.approval else self.statement


def collect(registry: ModelRegistry, number: int) -> Trace:
    """Read a version's chain off ZenML and the audit log.

    Raises:
        RegistryError: There is no such version.
        ArtifactError: An artifact or the run is no longer linked to it.
    """
    version = versions.get_version(registry.model_name, number)
    facts = {key: str(value) for key, value in version.run_metadata.items()}
    approval = registry.approval(version)
    signed = {"who": approval.who, "when": approval.when, "why": approval.why} if approval else {}
    links = (
        *(_artifact_link(version, name, facts) for name in _ARTIFACTS),
        Link("config", {"sha256": facts.get("config", "?"), "run": facts.get("pipeline_run", "?")}),
        Link("commit", {k: facts.get(k, "?") for k in ("git_commit", "git_dirty")}),
        Link("packages", _packages(facts)),
        Link("stack", {"name": facts.get("stack", "?")}),
        Link("approver", signed or {"approved by": "nobody"}),
    )
    return Trace(version, links, stored_statement(version), approval)


def verify(trace: Trace) -> Iterator[Check]:
    """Derive every hash again from the stored artifacts, and compare with the lineage."""
    version = trace.version
    predictor = versions.load_predictor(version)
    contract = predictor.contract.fingerprints
    yield _compare("predictor", fingerprint_of(version), predictor.fingerprint)
    dataset = versions.load_artifact(version, "dataset", ImageDataset)
    split = versions.load_artifact(version, "split", Split)
    yield _check_pixels(dataset)
    yield _compare("dataset", contract.get("data", ""), dataset.fingerprint)
    yield _compare("split's dataset", dataset.fingerprint, split.dataset_fingerprint)
    transform = versions.load_artifact(version, "transform", FittedTransform)
    yield _compare("transform", contract.get("transform", ""), transform.fingerprint)
    trained = versions.load_artifact(version, "trained_model", TrainedModel)
    yield _compare("model", contract.get("model", ""), trained.fingerprint)
    evaluation = versions.load_artifact(version, "evaluation", Evaluation)
    yield _compare(
        "evaluation's predictor", predictor.fingerprint, evaluation.predictor_fingerprint
    )
    golden = predictor.golden
    answered = predictor.predict(golden.images).probabilities
    difference = float(np.abs(answered - golden.probabilities).max())
    yield Check("golden samples", difference <= 1e-5, f"differ by {difference:.1e} at most")
    if trace.approval is not None:
        signed = str(trace.approval.detail["provenance"])
        yield _compare("provenance that was approved", signed, fingerprint(dict(trace.statement)))


def reproduce(trace: Trace) -> Check:
    """Fit, train and export again from the stored images and settings, and compare the bytes.

    Exact on an equal machine with equal packages; a difference names the packages that changed.
    """
    from cv_factory.export.onnx_graph import export_predictor, select_calibration_set
    from cv_factory.export.quantize import quantize
    from cv_factory.training.train import train
    from cv_factory.transforms.fitted import fit_transform

    version, told = trace.version, trace.parameters
    dataset = versions.load_artifact(version, "dataset", ImageDataset)
    split = versions.load_artifact(version, "split", Split)
    transform = fit_transform(
        dataset, split.train, TransformConfig.model_validate(told["fit_transform"]["config"])
    )
    settings = told["train"]
    trained = train(
        dataset,
        split,
        transform,
        _model_config(settings["model"]),
        TrainConfig.model_validate(settings["config"]),
    )
    stored = versions.load_predictor(version)
    calibration = CalibrationConfig.model_validate(told["export"].get("calibration", {}))
    made_of = {k: v for k, v in stored.contract.fingerprints.items() if k != "transform"}
    again = quantize(
        export_predictor(
            trained, transform, made_of, select_calibration_set(dataset, split, calibration)
        ),
        dataset,
        split,
        ExportConfig.model_validate(told["export"].get("config", {})),
    )
    check = _compare(
        "predictor.onnx, trained again",
        hashlib.sha256(stored.graph).hexdigest(),
        hashlib.sha256(again.graph).hexdigest(),
    )
    changed = [
        f"{key.removeprefix('package_')} {version.run_metadata.get(key)} → {now}"
        for key, now in package_versions().items()
        if version.run_metadata.get(key) != now
    ]
    if check.ok or not changed:
        return check
    return Check(check.name, False, f"{check.detail}; other packages: {', '.join(changed)}")


def _model_config(settings: Mapping[str, Any]) -> ModelConfig:
    from pydantic import TypeAdapter

    adapter: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)
    return adapter.validate_python(dict(settings))


def _artifact_link(version: ModelVersionResponse, name: str, facts: Mapping[str, str]) -> Link:
    artifact = version.get_artifact(name)
    if artifact is None:
        raise ArtifactError(
            f"Version {version.number} has no {name} linked to it: it can not be traced."
        )
    metadata = artifact.run_metadata
    shown = {"artifact": str(artifact.id), "where": artifact.uri}
    hashes = ("fingerprint", "data_fingerprint", "predictor_fingerprint")
    shown |= {key: str(metadata[key]) for key in hashes if key in metadata}
    if name == "dataset":
        shown["source"] = str(metadata.get("source", "?"))
    if name == "evaluation":
        shown["summary"] = facts.get("evaluation", "?")
    if name == "split":
        shown["sha256 of its ids"] = facts.get("split_fingerprint", "?")
    return Link(name, shown)


def _packages(facts: Mapping[str, str]) -> dict[str, str]:
    prefix = "package_"
    return {k.removeprefix(prefix): v for k, v in facts.items() if k.startswith(prefix)}


def _check_pixels(dataset: ImageDataset) -> Check:
    """Hash every image again: the dataset's fingerprint rests on these."""
    stored = dataset.manifest["pixels_sha256"].tolist()
    wrong = 0
    for i, image in enumerate(dataset.images):
        wrong += hashlib.sha256(np.ascontiguousarray(image).data).hexdigest() != stored[i]
    return Check("pixels", wrong == 0, f"{wrong} of {len(dataset)} images differ from their hash")


def _compare(name: str, expected: str, found: str) -> Check:
    if expected == found:
        return Check(name, True, found[:16])
    return Check(name, False, f"lineage says {expected[:16] or 'nothing'}, found {found[:16]}")
