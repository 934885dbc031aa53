"""Predictor: one ONNX graph from raw pixels to probabilities, its contract and golden samples.

It needs NumPy and ONNX Runtime only. It is what is evaluated, gated, registered and served.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from cv_factory.artifacts.arrays import load_npz
from cv_factory.artifacts.artifact import Artifact
from cv_factory.artifacts.files import canonical_json
from cv_factory.artifacts.onnx_session import import_onnxruntime, open_session
from cv_factory.cpu import available_cpus
from cv_factory.errors import ArtifactError

_GRAPH, _GOLDEN = "predictor.onnx", "golden.npz"
#: Prefix of the graph's nodes and constants that compute ``unfamiliarity``.
FAMILIARITY_PREFIX = "familiarity/"
#: Images a run. Layers of a backbone are so large that those of few images fill the CPU's cache.
_BATCH, _BACKBONE_BATCH = 256, 16
#: Maximum absolute difference between a golden sample's probabilities here and at export.
GOLDEN_TOLERANCE = 1e-5
#: The same of their scores of unfamiliarity; above 1, relative to the score as well.
UNFAMILIARITY_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Familiarity:
    """Scale of the graph's output ``unfamiliarity``: above 1 an image is unfamiliar.

    Attributes:
        threshold: What the graph divides by: the largest of the distances to the nearest training
            image in several spaces, each relative to its own bound.
        false_rate: Share of images like the validation images whose score is above 1.
        n_images: Number of validation images that set the threshold.
        n_references: Number of training images in the graph.
    """

    threshold: float
    false_rate: float
    n_images: int
    n_references: int


@dataclass(frozen=True)
class CalibrationCheck:
    """How a temperature held up on validation images that it was not fitted on.

    Attributes:
        n_images: Validation images.
        n_errors: How many of them the model misclassifies.
        log_loss: On held-out folds of them, uncalibrated and calibrated.
        calibration_error: Likewise, the expected calibration error.
        warning: Why the temperature is weak or 1; empty for a sound fit.
    """

    n_images: int
    n_errors: int
    log_loss: tuple[float, float]
    calibration_error: tuple[float, float]
    warning: str = ""

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "CalibrationCheck":
        """Rebuild it from JSON values."""
        pairs = {name: tuple(fields[name]) for name in ("log_loss", "calibration_error")}
        return cls(**{**fields, **pairs})


@dataclass(frozen=True)
class BackboneSource:
    """The pretrained backbone inside a predictor, and where its weights come from.

    Attributes:
        name: As in ``features.backbone``.
        input_size: Side of the square to which images are resized inside the graph, pixels.
        n_features: Number of its features, which the head is fitted on.
        weights_sha256: SHA-256 of the file with its weights.
        license: SPDX identifier of the weights' license, or where it is stated.
        fingerprint: SHA-256 of its graph.
        fine_tuned_epochs: Epochs that it was trained on, on the training images.
        fine_tuned_precision: Of the forward passes meanwhile: fp32, bf16 or fp16.
    """

    name: str
    input_size: int
    n_features: int
    weights_sha256: str
    license: str
    fingerprint: str
    fine_tuned_epochs: int = 0
    fine_tuned_precision: str | None = None


@dataclass(frozen=True)
class Contract:
    """Interface of a predictor, and where it comes from.

    Attributes:
        height: Rows of an input image.
        width: Columns of an input image.
        channels: 1 (gray) or 3 (RGB).
        class_names: Names of the columns of ``probabilities``.
        n_features: Number of columns of ``features``.
        model: Name and configuration of the model.
        fingerprints: SHA-256 of data, split, transform, config and code.
        temperature: Temperature of calibration; 1 if the graph is not calibrated.
        precision: Precision of weights and arithmetic: float32, float16 or int8.
        calibration: How the temperature held up; None if none was fitted.
        familiarity: Scale of ``unfamiliarity``; None if the graph has no such output.
        value_range: Stored values that are black and white in images of more than 8 bits; None
            for what their format defines.
        backbone: The pretrained backbone in the graph; None where the model sees the pixels.
    """

    height: int
    width: int
    channels: int
    class_names: tuple[str, ...]
    n_features: int
    model: dict[str, Any]
    fingerprints: dict[str, str]
    temperature: float = 1.0
    precision: str = "float32"
    calibration: CalibrationCheck | None = None
    familiarity: Familiarity | None = None
    value_range: tuple[float, float] | None = None
    backbone: BackboneSource | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the contract as JSON-serializable values."""
        fields = asdict(self)
        # Left out at their defaults: predictors stored before these fields keep their fingerprint.
        if self.precision == "float32":
            del fields["precision"]
        for name in ("calibration", "familiarity", "value_range", "backbone"):
            if fields[name] is None:
                del fields[name]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Contract":
        """Rebuild a contract from JSON values."""
        calibration, familiarity = fields.get("calibration"), fields.get("familiarity")
        value_range, backbone = fields.get("value_range"), fields.get("backbone")
        return cls(
            **{
                **fields,
                "class_names": tuple(fields["class_names"]),
                "calibration": calibration and CalibrationCheck.from_dict(calibration),
                "familiarity": familiarity and Familiarity(**familiarity),
                "value_range": value_range and tuple(value_range),
                "backbone": backbone and BackboneSource(**backbone),
            }
        )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an input image."""
        return self.height, self.width, self.channels

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph's outputs, in the order of ``Prediction``."""
        scores = () if self.familiarity is None else ("unfamiliarity",)
        return "probabilities", "features", *scores


class ImageScores(NamedTuple):
    """Outputs of the graph for one image.

    Attributes:
        probabilities: float32 ``(K,)``.
        features: PCA of the pixels or of a backbone's features, float32 ``(k,)``.
        unfamiliarity: Above 1 for an unfamiliar image; None if the graph has no such output.
    """

    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    unfamiliarity: float | None = None

    @property
    def is_unfamiliar(self) -> bool | None:
        """Whether the image is unlike the training images; None if that is not known."""
        return None if self.unfamiliarity is None else self.unfamiliarity > 1.0


@dataclass(frozen=True)
class Prediction:
    """Outputs of the graph.

    Attributes:
        probabilities: float32 ``(N, K)``.
        features: PCA of the pixels or of a backbone's features, float32 ``(N, k)``.
        unfamiliarity: float32 ``(N,)``, above 1 for unfamiliar images; None without this output.
    """

    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    unfamiliarity: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Return the number of images, N."""
        return len(self.probabilities)

    @classmethod
    def concatenate(cls, batches: Sequence[Self]) -> Self:
        """Return the outputs of some batches as those of one."""
        if len(batches) == 1:
            return batches[0]
        arrays = zip(*(b._arrays() for b in batches), strict=True)
        return cls(*(np.concatenate(parts) for parts in arrays))

    def _arrays(self) -> list[npt.NDArray[np.float32]]:
        return [array for array in vars(self).values() if array is not None]

    def rows(self) -> list[ImageScores]:
        """Return the outputs by image."""
        n, scores = len(self), self.unfamiliarity
        by_image = [None] * n if scores is None else scores.tolist()
        return list(map(ImageScores, self.probabilities, self.features, by_image))


@dataclass(frozen=True)
class GoldenSamples:
    """Golden samples: images and their outputs at export, to verify a predictor anywhere else.

    Images uint8 ``(n, H, W, C)``, probabilities float32 ``(n, K)``, features float32 ``(n, k)``,
    unfamiliarity float32 ``(n,)`` where the graph has this output.
    """

    images: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    unfamiliarity: npt.NDArray[np.float32] | None = None

    @classmethod
    def from_outputs(cls, images: npt.NDArray[np.uint8], outputs: Prediction) -> Self:
        """Return golden samples with a graph's outputs of these images."""
        return cls(images, outputs.probabilities, outputs.features, outputs.unfamiliarity)

    @property
    def outputs(self) -> Prediction:
        """The outputs at export."""
        return Prediction(self.probabilities, self.features, self.unfamiliarity)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays by name, without one that the graph does not give."""
        return {name: array for name, array in vars(self).items() if array is not None}

    def verify(self, outputs: Prediction, name: str) -> None:
        """Compare the outputs on this machine with those at export.

        Args:
            outputs: Of the golden images.
            name: Name of the predictor, for the error.

        Raises:
            ArtifactError: Probabilities differ by more than ``GOLDEN_TOLERANCE`` or in a label, or
                scores of unfamiliarity by more than ``UNFAMILIARITY_TOLERANCE``.
        """
        probabilities = outputs.probabilities
        difference = float(np.abs(probabilities - self.probabilities).max())
        has_equal_labels = (probabilities.argmax(1) == self.probabilities.argmax(1)).all()
        # Not "difference > TOLERANCE": NaN must fail as well.
        if not (difference <= GOLDEN_TOLERANCE and has_equal_labels):
            raise ArtifactError(
                f"{name} answers its golden samples differently than at export (by "
                f"{difference:.2e}, allowed: {GOLDEN_TOLERANCE:g}): it must not be used on this "
                "machine. Use a CPU of the kind that exported it, or train on one of this kind."
            )
        if self.unfamiliarity is None:
            return
        scores = outputs.unfamiliarity
        if scores is None or not np.allclose(
            scores,
            self.unfamiliarity,
            rtol=UNFAMILIARITY_TOLERANCE,
            atol=UNFAMILIARITY_TOLERANCE,
        ):
            raise ArtifactError(
                f"{name} scores the unfamiliarity of its golden samples differently than at export "
                f"(by more than {UNFAMILIARITY_TOLERANCE:g}): it must not be used on this machine. "
                "Use a CPU of the kind that exported it, or train on one of this kind."
            )


@dataclass(frozen=True)
class Predictor(Artifact):
    """ONNX graph with its contract and golden samples.

    Attributes:
        graph: Serialized ONNX model.
        contract: Interface and fingerprints.
        golden: Golden samples.
        threads: Threads of ONNX Runtime in this process; as many as CPUs if not given.
    """

    KIND: ClassVar[str] = "contract"
    VERIFY_LARGE_FILES: ClassVar[bool] = True

    graph: bytes
    contract: Contract
    golden: GoldenSamples
    threads: int | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of graph, contract and golden samples."""
        digest = hashlib.sha256(self.graph)
        digest.update(canonical_json(self.contract.to_dict()).encode())
        for array in self.golden.arrays().values():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def predict(self, images: npt.NDArray[np.uint8]) -> Prediction:
        """Predict images.

        Args:
            images: uint8 ``(N, H, W, C)`` of the contract's size; may be memory-mapped.

        Raises:
            ValueError: The images have another shape or dtype.
        """
        expected = self.contract.input_shape
        if images.dtype != np.uint8 or images.shape[1:] != expected:
            raise ValueError(
                f"expected uint8 images (N, {', '.join(map(str, expected))}), "
                f"got {images.dtype} {images.shape}"
            )
        size = _BATCH if self.contract.backbone is None else _BACKBONE_BATCH
        names, starts = self.contract.output_names, range(0, max(len(images), 1), size)
        batches = [self._session.run(names, {"images": images[i : i + size]}) for i in starts]
        return Prediction.concatenate([Prediction(*outputs) for outputs in batches])

    def predict_single_threaded(self, images: npt.NDArray[np.uint8]) -> Prediction:
        """Predict a few images in the calling thread only, for callers that use all cores.

        Args:
            images: uint8 ``(N, H, W, C)`` of the contract's size.
        """
        return Prediction(
            *self._single_threaded_session.run(self.contract.output_names, {"images": images})
        )

    @cached_property
    def _session(self) -> Any:
        return self._open_session(self.threads or available_cpus())

    @cached_property
    def _single_threaded_session(self) -> Any:
        return self._open_session(1)

    def _open_session(self, threads: int) -> Any:
        errors = import_onnxruntime().capi.onnxruntime_pybind11_state
        try:
            return open_session(self.graph, threads)
        except (
            errors.InvalidProtobuf,
            errors.InvalidGraph,
            errors.InvalidArgument,
            errors.Fail,
        ) as error:
            raise ArtifactError(f"The predictor's graph is not valid ONNX ({error}).") from None

    def _write_files(self, directory: Path) -> dict[str, str | None]:
        (directory / _GRAPH).write_bytes(self.graph)
        arrays: dict[str, Any] = self.golden.arrays()
        np.savez(directory / _GOLDEN, **arrays)
        return {_GRAPH: None, _GOLDEN: None}

    def _header(self) -> dict[str, Any]:
        return {"contract": self.contract.to_dict(), "fingerprint": self.fingerprint}

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        contract = Contract.from_dict(body["contract"])
        arrays = load_npz(directory / _GOLDEN, ("images", *contract.output_names))
        graph = (directory / _GRAPH).read_bytes()
        loaded = cls(graph, contract, GoldenSamples(**arrays))
        if loaded.fingerprint != body["fingerprint"]:
            raise ArtifactError(f"{directory / 'contract.json'}: the fingerprint does not match.")
        return loaded
