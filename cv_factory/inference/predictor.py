"""The Predictor: one ONNX graph from raw pixels to probabilities, and the contract it keeps.

Needs NumPy and ONNX Runtime only. What is evaluated, gated, registered and served is this.
"""

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cv_factory.artifacts.arrays import load_npz
from cv_factory.artifacts.files import canonical_json, read_header, write_header
from cv_factory.cpu import available_cpus
from cv_factory.errors import ArtifactError

_KIND, _VERSION = "contract", 1
_GRAPH, _GOLDEN = "predictor.onnx", "golden.npz"
_BATCH = 256
#: Largest difference in probability between a golden sample's answer and what it was at export.
GOLDEN_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Contract:
    """What a predictor promises to whoever calls it.

    Attributes:
        height: Rows of an input image.
        width: Columns of an input image.
        channels: 1 (grey) or 3 (RGB).
        class_names: Meaning of the columns of ``probabilities``.
        n_features: Number of columns of ``features``.
        model: Name and configuration of the model.
        fingerprints: SHA-256 of what went in: data, split, transform, config, code.
        temperature: By which the graph calibrates its probabilities; 1 if it does not.
        precision: Of weights and arithmetic: float32, float16 or int8.
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        fields = asdict(self)
        if self.precision == "float32":
            # Predictors that were stored before there was another keep their fingerprint.
            del fields["precision"]
        return fields

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
    """Samples whose answers are known, to prove a deployed predictor.

    Images uint8 ``(n, H, W, C)``, probabilities float32 ``(n, K)``, features float32 ``(n, k)``.
    """

    images: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]

    def check(self, answered: npt.NDArray[np.float32], name: str) -> None:
        """Compare what the images are answered on this machine with what they were at export.

        Args:
            answered: Probabilities float32 ``(n, K)``.
            name: Of what answered, for the error.

        Raises:
            ArtifactError: They differ.
        """
        difference = float(np.abs(answered - self.probabilities).max())
        same = (answered.argmax(1) == self.probabilities.argmax(1)).all()
        # Not "difference > TOLERANCE": NaN must fail as well.
        if not (difference <= GOLDEN_TOLERANCE and same):
            raise ArtifactError(
                f"{name} answers its golden samples differently than at export (by "
                f"{difference:.2e}, allowed: {GOLDEN_TOLERANCE:g}): it must not be used on this "
                "machine. Use a CPU of the kind that exported it, or train on one of this kind."
            )


@dataclass(frozen=True)
class Predictor:
    """A graph, its contract and its golden samples.

    Attributes:
        graph: Serialized ONNX.
        contract: What it promises.
        golden: Samples with known answers.
        threads: Of ONNX Runtime in this process; as many as CPUs if not given.
    """

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
        """Score images.

        Args:
            images: uint8 ``(N, H, W, C)`` at the contract's size; may be memory-mapped.

        Raises:
            ValueError: The images have another shape or type.
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
        """Score a few images on the calling thread alone, for callers that keep every core busy.

        Args:
            images: uint8 ``(N, H, W, C)`` at the contract's size.

        Returns:
            Probabilities float32 ``(N, K)``.
        """
        scored: npt.NDArray[np.float32]
        (scored,) = self._one_thread_session.run(["probabilities"], {"images": images})
        return scored

    @cached_property
    def _session(self) -> Any:
        return self._open_session(self.threads or available_cpus())

    @cached_property
    def _one_thread_session(self) -> Any:
        return self._open_session(1)

    def _open_session(self, threads: int) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that wait for work by spinning take the CPU from whoever else has work.
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

    def save(self, directory: Path) -> None:
        """Write ``predictor.onnx``, ``golden.npz`` and ``contract.json``."""
        (directory / _GRAPH).write_bytes(self.graph)
        golden = self.golden
        np.savez(
            directory / _GOLDEN,
            images=golden.images,
            probabilities=golden.probabilities,
            features=golden.features,
        )
        body = {"contract": self.contract.to_dict(), "fingerprint": self.fingerprint}
        write_header(directory, _KIND, _VERSION, body, [_GRAPH, _GOLDEN])

    @classmethod
    def load(cls, directory: Path) -> "Predictor":
        """Read a predictor; the graph is built when it is first used.

        Raises:
            ArtifactError: It is damaged, incomplete or of another format version.
        """
        body = read_header(directory, _KIND, _VERSION, verify_large=True)
        arrays = load_npz(directory / _GOLDEN, ("images", "probabilities", "features"))
        fields = dict(body["contract"])
        fields["class_names"] = tuple(fields["class_names"])
        try:
            contract = Contract(**fields)
        except TypeError as error:
            raise ArtifactError(
                f"{directory / 'contract.json'} is not a contract: {error}."
            ) from None
        graph = (directory / _GRAPH).read_bytes()
        loaded = cls(graph, contract, GoldenSamples(**arrays))
        if loaded.fingerprint != body["fingerprint"]:
            raise ArtifactError(f"{directory / 'contract.json'}: the fingerprint does not match.")
        return loaded
