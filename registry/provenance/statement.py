"""A version's provenance: an in-toto statement with SLSA's provenance predicate.

The shape is that of https://in-toto.io/Statement/v1 and https://slsa.dev/provenance/v1; what this
project puts where stands in docs/provenance.md. An approval holds the SHA-256 of the statement.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zenml.models import ModelVersionResponse

from cv_factory.inference.predictor import Predictor
from registry import versions
from registry.audit.log import Entry
from registry.run_reference import step_parameters

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://slsa.dev/provenance/v1"
#: Names docs/provenance.md, wherever that is published.
BUILD_TYPE = "urn:uuid:6c0f8a52-4be2-4d0e-9a0d-3f6e2b7c51d4"
_INPUTS = ("data", "split", "transform", "model", "config", "code")
_PACKAGE = "package_"


def statement(
    predictor: Predictor, lineage: Mapping[str, str], parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the statement about a predictor.

    Args:
        predictor: Its files are the subjects.
        lineage: Git commit, run, stack, packages.
        parameters: What the run's steps were told, by step.
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
                "buildType": BUILD_TYPE,
                "externalParameters": dict(parameters),
                "internalParameters": {"stack": lineage.get("stack", "unknown")},
                "resolvedDependencies": [
                    *_source(lineage),
                    *_inputs(predictor),
                    *_packages(lineage),
                ],
            },
            "runDetails": {
                "builder": {
                    "id": f"urn:uuid:{lineage['zenml_deployment']}",
                    "version": {"zenml": lineage.get(f"{_PACKAGE}zenml", "unknown")},
                },
                "metadata": {"invocationId": lineage.get("pipeline_run", "unknown")},
            },
        },
    }


def stored_statement(version: ModelVersionResponse) -> dict[str, Any]:
    """Derive a version's statement again from what is stored of it.

    Raises:
        ArtifactError: Its predictor or its run is gone.
    """
    parameters = step_parameters(versions.run_of(version))
    return statement(versions.load_predictor(version), versions.lineage_of(version), parameters)


def with_approval(found: Mapping[str, Any], approval: Entry) -> dict[str, Any]:
    """Return a statement that also says who signed it off, when, why and where that is logged."""
    predicate = found["predicate"]
    signed = {
        "who": approval.who,
        "when": approval.when,
        "why": approval.why,
        "auditLogEntry": {"number": approval.number, "sha256": approval.sha256},
    }
    details = {**predicate["runDetails"], "cvfactory_approval": signed}
    return {**found, "predicate": {**predicate, "runDetails": details}}


def _files(predictor: Predictor) -> dict[str, str]:
    """Return the SHA-256 of each file of a predictor, as it lies in the artifact store."""
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
    return [{"name": "source", "digest": {"gitCommit": commit}, "annotations": dirty}]


def _inputs(predictor: Predictor) -> list[dict[str, Any]]:
    known = predictor.contract.fingerprints
    return [{"name": n, "digest": {"sha256": known[n]}} for n in _INPUTS if n in known]


def _packages(lineage: Mapping[str, str]) -> list[dict[str, Any]]:
    found = {k.removeprefix(_PACKAGE): v for k, v in lineage.items() if k.startswith(_PACKAGE)}
    return [
        {"uri": f"pkg:pypi/{name}@{version}"}
        for name, version in sorted(found.items())
        if version != "not installed"
    ]
