"""The artifact ``deployment``: the version that answers, where, and how it was verified."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from cv_factory.artifacts.artifact import Artifact
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
        share: Fraction of the requests that this version is given.
        replaced: What was served before: the fraction of each service by its id.
        is_new: Whether a service was started for it; otherwise it ran already.
        stage: Of the version when the deployment was done.
        verification: Through the model's address; None until it was verified there.
    """

    KIND: ClassVar[str] = "deployment"

    model_name: str
    version: str
    predictor: str
    service_id: str
    url: str
    share: float
    replaced: dict[str, float]
    is_new: bool
    stage: str
    verification: VerificationResult | None = None

    def with_verification(self, result: VerificationResult | None) -> "Deployment":
        """Return the deployment with its verification; a canary has none through the address."""
        return replace(self, verification=result)

    def with_stage(self, stage: str) -> "Deployment":
        """Return the deployment with another stage of its version."""
        return replace(self, stage=stage)

    def _header(self) -> dict[str, Any]:
        body = asdict(self)
        body["proof"] = body.pop("verification")  # its name on disk
        return body

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        stored = body.pop("proof", None)
        return cls(**body, verification=VerificationResult(**stored) if stored else None)
