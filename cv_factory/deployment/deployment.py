"""The artifact ``deployment``: the version that answers, where, and how it was verified."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from pydantic import TypeAdapter

from cv_factory.artifacts.artifact import Artifact
from cv_factory.deployment.traffic import Arm, Traffic
from cv_factory.deployment.verify import VerificationResult


@dataclass(frozen=True)
class Deployment(Artifact):
    """One version of a model, served.

    Attributes:
        model_name: Name of the registered model.
        version: Number of the version, as text.
        predictor: Fingerprint of the predictor that is served.
        service_id: The model deployer's id of the service.
        url: Where clients find the model, without a path.
        share: Fraction of the requests that this version is given, or copies of them.
        replaced: Traffic before, by the model deployer's ids of the services.
        is_new: Whether a service was started for it; otherwise it ran already.
        stage: Of the version when the deployment was done.
        verification: Through the model's address; None until it was verified there.
        arm: Part of this version in a rollout.
    """

    KIND: ClassVar[str] = "deployment"

    model_name: str
    version: str
    predictor: str
    service_id: str
    url: str
    share: float
    replaced: Traffic
    is_new: bool
    stage: str
    verification: VerificationResult | None = None
    arm: Arm = "stable"

    def with_verification(self, result: VerificationResult | None) -> "Deployment":
        """Return the deployment with its verification; a canary has none through the address."""
        return replace(self, verification=result)

    def with_stage(self, stage: str) -> "Deployment":
        """Return the deployment with another stage of its version."""
        return replace(self, stage=stage)

    def _header(self) -> dict[str, Any]:
        body: dict[str, Any] = _SCHEMA.dump_python(self, mode="json")
        body["proof"] = body.pop("verification")  # its name on disk
        return body

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        replaced = body["replaced"]
        if "shares" not in replaced:  # weights by id, as earlier releases stored them
            shares = {name: {"fraction": weight} for name, weight in replaced.items()}
            replaced = {"shares": shares}
        stored = {**body, "replaced": replaced, "verification": body.get("proof")}
        return cast(Self, _SCHEMA.validate_python(stored))


_SCHEMA = TypeAdapter(Deployment)
