"""Predictor: one ONNX graph from raw pixels to probabilities, its contract and golden samples.

It needs NumPy and ONNX Runtime only. It is what is evaluated, gated, registered and served.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from cv_factory.artifacts.arrays import load_npz
from cv_factory.artifacts.artifact import Artifact
from cv_factory.artifacts.files import canonical_json
from cv_factory.cpu import available_cpus
from cv_factory.errors import ArtifactError

_GRAPH, _GOLDEN = "predictor.onnx", "golden.npz"
_BATCH = 256
#: Maximum absolute difference between a golden sample's probabilities here and at export.
GOLDEN_TOLERANCE = 1e-5


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

    def to_dict(self) -> dict[str, Any]:
        """Return the contract as JSON-serializable values."""
        fields = asdict(self)
        # Left out at their defaults: predictors stored before these fields keep their fingerprint.
        if self.precision == "float32":
            del fields["precision"]
        if self.calibration is None:
            del fields["calibration"]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Contract":
        """Rebuild a contract from JSON values."""
        calibration = fields.get("calibration")
        return cls(
            **{
                **fields,
                "class_names": tuple(fields["class_names"]),
                "calibration": calibration and CalibrationCheck.from_dict(calibration),
            }
        )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an input image."""
        return self.height, self.width, self.channels


@dataclass(frozen=True)
class Prediction:
    """Probabilities float32 ``(N, K)`` and PCA features float32 ``(N, k)``."""

    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]


@dataclass(frozen=True)
class GoldenSamples:
    """Golden samples: images and their outputs at export, to verify a predictor anywhere else.

    Images uint8 ``(n, H, W, C)``, probabilities float32 ``(n, K)``, features float32 ``(n, k)``.
    """

    images: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]

    def verify(self, probabilities: npt.NDArray[np.float32], name: str) -> None:
        """Compare the probabilities on this machine with those at export.

        Args:
            probabilities: float32 ``(n, K)``, of the golden images.
            name: Name of the predictor, for the error.

        Raises:
            ArtifactError: They differ by more than ``GOLDEN_TOLERANCE``, or in a label.
        """
        difference = float(np.abs(probabilities - self.probabilities).max())
        has_equal_labels = (probabilities.argmax(1) == self.probabilities.argmax(1)).all()
        # Not "difference > TOLERANCE": NaN must fail as well.
        if not (difference <= GOLDEN_TOLERANCE and has_equal_labels):
            raise ArtifactError(
                f"{name} answers its golden samples differently than at export (by "
                f"{difference:.2e}, allowed: {GOLDEN_TOLERANCE:g}): it must not be used on this "
                "machine. Use a CPU of the kind that exported it, or train on one of this kind."
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
        for array in (self.golden.images, self.golden.probabilities, self.golden.features):
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
        outputs = [
            self._session.run(["probabilities", "features"], {"images": images[i : i + _BATCH]})
            for i in range(0, max(len(images), 1), _BATCH)
        ]
        return Prediction(
            np.concatenate([probabilities for probabilities, _ in outputs]),
            np.concatenate([features for _, features in outputs]),
        )

    def predict_single_threaded(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Predict a few images in the calling thread only, for callers that use all cores.

        Args:
            images: uint8 ``(N, H, W, C)`` of the contract's size.

        Returns:
            Probabilities float32 ``(N, K)``.
        """
        probabilities: npt.NDArray[np.float32]
        (probabilities,) = self._single_threaded_session.run(["probabilities"], {"images": images})
        return probabilities

    @cached_property
    def _session(self) -> Any:
        return self._open_session(self.threads or available_cpus())

    @cached_property
    def _single_threaded_session(self) -> Any:
        return self._open_session(1)

    def _open_session(self, threads: int) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Spinning threads would take the CPU from other work while they wait.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        try:
            return onnxruntime.InferenceSession(self.graph, options, providers=providers)
        except (
            onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf,
            onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
            onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
            onnxruntime.capi.onnxruntime_pybind11_state.Fail,
        ) as error:
            raise ArtifactError(f"The predictor's graph is not valid ONNX ({error}).") from None

    def _write_files(self, directory: Path) -> dict[str, str | None]:
        (directory / _GRAPH).write_bytes(self.graph)
        golden = self.golden
        np.savez(
            directory / _GOLDEN,
            images=golden.images,
            probabilities=golden.probabilities,
            features=golden.features,
        )
        return {_GRAPH: None, _GOLDEN: None}

    def _header(self) -> dict[str, Any]:
        return {"contract": self.contract.to_dict(), "fingerprint": self.fingerprint}

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        arrays = load_npz(directory / _GOLDEN, ("images", "probabilities", "features"))
        graph = (directory / _GRAPH).read_bytes()
        loaded = cls(graph, Contract.from_dict(body["contract"]), GoldenSamples(**arrays))
        if loaded.fingerprint != body["fingerprint"]:
            raise ArtifactError(f"{directory / 'contract.json'}: the fingerprint does not match.")
        return loaded
