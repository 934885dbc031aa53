"""BatchPredictions: the summary of one batch inference job."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from cv_factory.artifacts.artifact import Artifact
from cv_factory.errors import ArtifactError


@dataclass(frozen=True)
class BatchPredictions(Artifact):
    """Summary of one batch inference job; its rows are Parquet parts in ``folder``.

    Attributes:
        folder: Path or URL of the folder that holds ``part-*.parquet``.
        source: Description of the image source, for people.
        source_fingerprint: Fingerprint of the source as it was listed.
        model_name: Name of the registered model.
        model_version: Version of the model.
        predictor_fingerprint: Fingerprint of its predictor.
        n_rows: Number of rows, one a record of the source.
        n_quarantined: Number of rows with a reason in place of a prediction.
        class_counts: Number of predicted images by class name.
        parts: Names of the part files, in the order of the source.
        n_unfamiliar: Number of images unlike the training images; None if not scored.
        notices: What the source left out as no images, one sentence each.
    """

    KIND: ClassVar[str] = "batch_predictions"

    folder: str
    source: str
    source_fingerprint: str
    model_name: str
    model_version: int
    predictor_fingerprint: str
    n_rows: int
    n_quarantined: int
    class_counts: dict[str, int]
    parts: tuple[str, ...]
    n_unfamiliar: int | None = None
    notices: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, fields: dict[str, Any], where: str) -> Self:
        """Rebuild the summary from plain values.

        Args:
            fields: As ``dataclasses.asdict`` gives them, after JSON.
            where: Name of their file, for the error.

        Raises:
            ArtifactError: A field is missing or unknown.
        """
        try:
            lists = {name: tuple(fields.get(name, ())) for name in ("parts", "notices")}
            return cls(**{**fields, **lists})
        except TypeError as error:
            raise ArtifactError(
                f"{where} is no valid summary of batch predictions: {error}."
            ) from None

    def _header(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        return cls.from_dict(body, str(directory / f"{cls.KIND}.json"))
