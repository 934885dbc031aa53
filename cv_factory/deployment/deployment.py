"""The Deployment: which version answers where, since when nothing else does, and on which proof."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cv_factory.artifacts.files import read_header, write_header
from cv_factory.deployment.verify import Proof
from cv_factory.errors import ArtifactError

_KIND, _VERSION = "deployment", 1


@dataclass(frozen=True)
class Deployment:
    """One version of a model, served.

    Attributes:
        model_name: Name of the registered model.
        version: Number of the version, as text.
        predictor: Fingerprint of the predictor that is served.
        service_id: The model deployer's id of the service.
        url: Where clients find the model, without a path.
        share: Of the requests that this version is given.
        replaced: What was served before: the share of each service by its id.
        is_new: Whether a service was started for it; otherwise it ran already.
        stage: Of the version when the deployment was done.
        proof: Through the front; None until it was proven there.
    """

    model_name: str
    version: str
    predictor: str
    service_id: str
    url: str
    share: float
    replaced: dict[str, float]
    is_new: bool
    stage: str
    proof: Proof | None = None

    def proven(self, proof: Proof | None) -> "Deployment":
        """Return the deployment with its proof; a canary has none through the front."""
        return replace(self, proof=proof)

    def promoted(self, stage: str) -> "Deployment":
        """Return the deployment of a version that is in a stage now."""
        return replace(self, stage=stage)

    def save(self, directory: Path) -> None:
        """Write ``deployment.json``."""
        write_header(directory, _KIND, _VERSION, asdict(self))

    @classmethod
    def load(cls, directory: Path) -> "Deployment":
        """Read a deployment.

        Raises:
            ArtifactError: It is damaged or of another format version.
        """
        body = read_header(directory, _KIND, _VERSION)
        try:
            proof = Proof(**body["proof"]) if body.get("proof") else None
            return cls(**{**body, "proof": proof})
        except TypeError as error:
            raise ArtifactError(f"{directory / _KIND}.json is no deployment: {error}.") from None
