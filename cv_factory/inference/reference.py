"""Reference for monitoring: a predictor's outputs for labelled images that it was not fitted on.

A bundle holds it, so that what a service predicts can be compared with it wherever that runs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from cv_factory.artifacts.arrays import load_array, load_npz
from cv_factory.artifacts.artifact import Artifact
from cv_factory.errors import ArtifactError

#: What is measured of each image: size of the encoded image in pixels, and statistics of its input
#: pixels (``cv_factory.data.image_statistics``).
STATISTICS = ("width", "height", "brightness", "contrast", "sharpness")
_UNFAMILIARITY = "unfamiliarity.npy"
_ARRAYS = ("labels", "probabilities", "features", "statistics")


@dataclass(frozen=True, eq=False)
class LabeledOutputs:
    """Outputs of a predictor for N labelled images.

    Attributes:
        labels: True classes, int64 ``(N,)``.
        probabilities: float32 ``(N, K)``.
        features: float32 ``(N, k)``.
        statistics: float32 ``(N, 5)``, the columns ``STATISTICS``.
    """

    labels: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    statistics: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        """Check that all describe the same images.

        Raises:
            ValueError: They do not.
        """
        lengths = {name: len(array) for name, array in vars(self).items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"arrays of different lengths: {lengths}")
        if self.statistics.shape[1:] != (len(STATISTICS),):
            raise ValueError(f"statistics {self.statistics.shape} are not (N, {len(STATISTICS)})")

    def __len__(self) -> int:
        """Return the number of images, N."""
        return len(self.labels)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Predicted classes, int64 ``(N,)``."""
        predicted: npt.NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return predicted

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """Probability of the predicted class, float32 ``(N,)``."""
        confidence: npt.NDArray[np.float32] = self.probabilities.max(axis=1)
        return confidence

    @property
    def accuracy(self) -> float:
        """Share of images whose class is predicted."""
        return float((self.predicted == self.labels).mean())


@dataclass(frozen=True)
class EstimatorError:
    """How far an estimate of the accuracy without labels was off on corrupted test images.

    Attributes:
        estimator: Such as ``cbpe``.
        corruption: Such as ``gaussian_blur``; ``none`` for the images as they are.
        severity: 1 to 3; 0 for the images as they are.
        n_images: Number of images.
        accuracy: Their measured accuracy.
        estimate: What the estimator said.
        statistics: Mean brightness, contrast and sharpness of the images.
    """

    estimator: str
    corruption: str
    severity: int
    n_images: int
    accuracy: float
    estimate: float
    statistics: tuple[float, ...] = ()

    @property
    def error(self) -> float:
        """Estimate minus accuracy, in shares of 1."""
        return self.estimate - self.accuracy


@dataclass(frozen=True, eq=False)
class Reference(Artifact):
    """Held-out outputs that predictions in the field are compared with.

    Attributes:
        class_names: K names, of the columns of ``probabilities``.
        predictor_fingerprint: The predictor whose outputs these are.
        test: Of the test split, or an even sample of it.
        validation: Of the validation split, to fit estimators on: ``test`` measures their error.
        estimator_errors: A row for each estimator and kind of images; empty if not measured.
        unfamiliarity: Scores of the images of ``test``, float32 ``(N,)``; None where the predictor
            has no such output.
    """

    KIND: ClassVar[str] = "reference"

    class_names: tuple[str, ...]
    predictor_fingerprint: str
    test: LabeledOutputs
    validation: LabeledOutputs
    estimator_errors: tuple[EstimatorError, ...] = ()
    unfamiliarity: npt.NDArray[np.float32] | None = None

    def _parts(self) -> Mapping[str, LabeledOutputs]:
        return {"test": self.test, "validation": self.validation}

    def _write_files(self, directory: Path) -> dict[str, str | None]:
        for name, outputs in self._parts().items():
            np.savez(directory / f"{name}.npz", **vars(outputs))
        files: dict[str, str | None] = {f"{name}.npz": None for name in self._parts()}
        if self.unfamiliarity is not None:
            np.save(directory / _UNFAMILIARITY, self.unfamiliarity)
            files[_UNFAMILIARITY] = None
        return files

    def _header(self) -> dict[str, Any]:
        return {
            "class_names": list(self.class_names),
            "predictor_fingerprint": self.predictor_fingerprint,
            "estimator_errors": [asdict(row) for row in self.estimator_errors],
        }

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        parts = {
            name: LabeledOutputs(**load_npz(directory / f"{name}.npz", _ARRAYS))
            for name in ("test", "validation")
        }
        names = tuple(body["class_names"])
        for name, outputs in parts.items():
            if outputs.probabilities.shape[1:] != (len(names),):
                raise ArtifactError(f"{directory / name}.npz: not {len(names)} probabilities.")
        errors = tuple(
            EstimatorError(**{**row, "statistics": tuple(row["statistics"])})
            for row in body["estimator_errors"]
        )
        path = directory / _UNFAMILIARITY
        unfamiliarity = load_array(path) if path.exists() else None
        return cls(
            names,
            body["predictor_fingerprint"],
            **parts,
            estimator_errors=errors,
            unfamiliarity=unfamiliarity,
        )
