"""Provenance of a version: an in-toto statement with SLSA's provenance predicate.

The formats are https://in-toto.io/Statement/v1 and https://slsa.dev/provenance/v1;
docs/provenance.md says what each field holds. An approval holds the SHA-256 of the statement.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zenml.models import ModelVersionResponse

from cv_factory.inference.predictor import Predictor
from registry import versions
from registry.audit.log import AuditEntry
from registry.run_reference import step_parameters

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://slsa.dev/provenance/v1"
#: The build type that docs/provenance.md describes, of a checkout that was cloned from no URL.
LOCAL_BUILD_TYPE = "urn:uuid:6c0f8a52-4be2-4d0e-9a0d-3f6e2b7c51d4"
#: Name of the dependency that is the file with a pretrained backbone's weights.
BACKBONE_WEIGHTS = "backbone weights"
_INPUTS = ("data", "split", "transform", "model", "config", "code")


def build_statement(
    predictor: Predictor, lineage: Mapping[str, str], parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the in-toto statement about a predictor.

    Args:
        predictor: Its files are the subjects.
        lineage: Git commit, run, stack, packages.
        parameters: Parameters of the run's steps, by step.
    """
    return {
        "_type": _STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": sha256}}
            for name, sha256 in _files(predictor).items()
        ],
        "predicateType": _PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": build_type(lineage),
                "externalParameters": dict(parameters),
                "internalParameters": {"stack": lineage.get("stack", "unknown")},
                "resolvedDependencies": [
                    *_source(lineage),
                    *_inputs(predictor),
                    *_backbone(predictor),
                    *_packages(lineage),
                ],
            },
            "runDetails": {
                "builder": {
                    "id": f"urn:uuid:{lineage['zenml_deployment']}",
                    "version": {"zenml": lineage.get(f"{versions.PACKAGE_PREFIX}zenml", "unknown")},
                },
                "metadata": {"invocationId": lineage.get("pipeline_run", "unknown")},
            },
        },
    }


def build_type(lineage: Mapping[str, str]) -> str:
    """Return the URI of the page that describes the build, in the repository that was cloned."""
    url = lineage.get("git_url")
    return f"{url}/blob/HEAD/docs/provenance.md#build-type" if url else LOCAL_BUILD_TYPE


def rebuild_statement(version: ModelVersionResponse) -> dict[str, Any]:
    """Derive a version's statement again from its stored predictor, metadata and run.

    Raises:
        ArtifactError: Its predictor or its run was deleted.
    """
    parameters = step_parameters(versions.training_run(version))
    lineage = versions.version_lineage(version)
    return build_statement(versions.load_predictor(version), lineage, parameters)


def add_approval(statement: Mapping[str, Any], approval: AuditEntry) -> dict[str, Any]:
    """Return a statement that also holds the approval and its entry in the audit log."""
    predicate = statement["predicate"]
    extension = {
        "who": approval.who,
        "when": approval.when,
        "why": approval.why,
        "auditLogEntry": {"number": approval.number, "sha256": approval.sha256},
    }
    details = {**predicate["runDetails"], "cvfactory_approval": extension}
    return {**statement, "predicate": {**predicate, "runDetails": details}}


def package_lineage(lineage: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of packages in a lineage, by the package's name."""
    prefix = versions.PACKAGE_PREFIX
    return {k.removeprefix(prefix): v for k, v in lineage.items() if k.startswith(prefix)}


def _files(predictor: Predictor) -> dict[str, str]:
    """Return the SHA-256 of each file of a predictor, equal to that in the artifact store."""
    with TemporaryDirectory() as folder:
        predictor.save(Path(folder))
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(Path(folder).iterdir())
        }


def _source(lineage: Mapping[str, str]) -> list[dict[str, Any]]:
    commit = lineage.get("git_commit", "unknown")
    if commit == "unknown":
        return []
    dirty = {"cvfactory_dirty": lineage.get("git_dirty", "unknown")}
    uri = {"uri": f"git+{lineage['git_url']}"} if "git_url" in lineage else {}
    return [{"name": "source", **uri, "digest": {"gitCommit": commit}, "annotations": dirty}]


def _inputs(predictor: Predictor) -> list[dict[str, Any]]:
    hashes = predictor.contract.fingerprints
    return [{"name": n, "digest": {"sha256": hashes[n]}} for n in _INPUTS if n in hashes]


def _backbone(predictor: Predictor) -> list[dict[str, Any]]:
    source = predictor.contract.backbone
    if source is None:
        return []
    annotations = {
        "cvfactory_name": source.name,
        "cvfactory_input_size": source.input_size,
        "cvfactory_license": source.license,
        "cvfactory_graph": source.fingerprint,
        "cvfactory_fine_tuned_epochs": source.fine_tuned_epochs,
    }
    digest = {"sha256": source.weights_sha256}
    return [{"name": BACKBONE_WEIGHTS, "digest": digest, "annotations": annotations}]


def _packages(lineage: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"uri": f"pkg:pypi/{name}@{version}"}
        for name, version in sorted(package_lineage(lineage).items())
        if version != "not installed"
    ]
