"""A version's provenance as an in-toto statement with an SLSA-shaped predicate.

https://in-toto.io/Statement/v1 and https://slsa.dev/provenance/v1 give the shape; nothing is signed
here, the audit log holds the approval and the hash of what was approved.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from cv_factory.inference.predictor import Predictor

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://slsa.dev/provenance/v1"
_BUILD_TYPE = "https://github.com/cv-factory/training/v1"
_INPUTS = ("data", "split", "transform", "model", "config", "code")
_PACKAGE = "package_"


def provenance(
    predictor: Predictor, lineage: Mapping[str, str], parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the statement about a predictor.

    Args:
        predictor: The subject.
        lineage: Git commit, run, stack, packages.
        parameters: Sections of the configuration that the run was given.
    """
    contract = predictor.contract
    inputs = [
        {"name": name, "digest": {"sha256": contract.fingerprints[name]}}
        for name in _INPUTS
        if name in contract.fingerprints
    ]
    packages = [
        {"uri": f"pkg:pypi/{key.removeprefix(_PACKAGE)}@{value}"}
        for key, value in sorted(lineage.items())
        if key.startswith(_PACKAGE)
    ]
    commit = lineage.get("git_commit", "unknown")
    return {
        "_type": _STATEMENT,
        "subject": [
            {
                "name": "predictor.onnx",
                "digest": {"sha256": hashlib.sha256(predictor.graph).hexdigest()},
            },
            {"name": "predictor", "digest": {"sha256": predictor.fingerprint}},
        ],
        "predicateType": _PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": dict(parameters),
                "internalParameters": {"stack": lineage.get("stack", "unknown")},
                "resolvedDependencies": [
                    {
                        "name": "source",
                        "digest": {"gitCommit": commit},
                        "annotations": {"dirty": lineage.get("git_dirty", "unknown")},
                    },
                    *inputs,
                    *packages,
                ],
            },
            "runDetails": {
                "builder": {"id": f"zenml@{lineage.get('package_zenml', 'unknown')}"},
                "metadata": {"invocationId": lineage.get("pipeline_run", "unknown")},
            },
        },
    }
