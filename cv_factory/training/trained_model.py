"""TrainedModel: best weights, how to rebuild the model, and its reference outputs."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from cv_factory.artifacts.arrays import load_npz, load_tensors
from cv_factory.artifacts.artifact import Artifact
from cv_factory.artifacts.files import canonical_json
from cv_factory.config.model import ModelConfig

_WEIGHTS, _GRAPH, _REFERENCE = "weights.safetensors", "model.onnx", "reference.npz"


@dataclass(frozen=True)
class Reference:
    """Images uint8 ``(n, H, W, C)`` and the probabilities float32 ``(n, K)`` of the live model."""

    images: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]


@dataclass(frozen=True)
class TrainedModel(Artifact):
    """A trained model with the reference outputs that its export must reproduce.

    Attributes:
        config: The model's section of the configuration.
        image_shape: Height, width, channels.
        n_classes: Number of classes.
        weights: A network's parameters and buffers by name; empty for a classical model.
        graph: A classical model as ONNX (features float32 ``(N, k)`` to probabilities); else empty.
        history: Metrics of each epoch; for a classical model one entry.
        best_epoch: The epoch, from 1, whose weights these are.
        reference: Images and the live model's probabilities, which an export must reproduce.
        precision: Of a network's forward passes in training: fp32, bf16 or fp16.
    """

    KIND: ClassVar[str] = "model"
    VERIFY_LARGE_FILES: ClassVar[bool] = True

    config: ModelConfig
    image_shape: tuple[int, int, int]
    n_classes: int
    weights: dict[str, npt.NDArray[np.generic]]
    graph: bytes
    history: tuple[dict[str, float], ...]
    best_epoch: int
    reference: Reference
    precision: str = "fp32"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the model, not of how long its epochs took."""
        digest = hashlib.sha256(canonical_json(self.config.model_dump(mode="json")).encode())
        for name, tensor in sorted(self.weights.items()):
            digest.update(name.encode() + tensor.tobytes())
        digest.update(self.graph)
        digest.update(self.reference.images.tobytes() + self.reference.probabilities.tobytes())
        return digest.hexdigest()

    def _write_files(self, directory: Path) -> dict[str, str | None]:
        from safetensors.numpy import save_file

        if self.weights:
            save_file(self.weights, directory / _WEIGHTS)
        else:
            (directory / _GRAPH).write_bytes(self.graph)
        reference = self.reference
        np.savez(
            directory / _REFERENCE, images=reference.images, probabilities=reference.probabilities
        )
        return {_WEIGHTS if self.weights else _GRAPH: None, _REFERENCE: None}

    def _header(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "image_shape": list(self.image_shape),
            "n_classes": self.n_classes,
            "history": list(self.history),
            "best_epoch": self.best_epoch,
            **({} if self.precision == "fp32" else {"precision": self.precision}),
        }

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        adapter: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)
        weights = directory / _WEIGHTS
        height, width, channels = body["image_shape"]
        return cls(
            config=adapter.validate_python(body["config"]),
            image_shape=(height, width, channels),
            n_classes=body["n_classes"],
            weights=load_tensors(weights) if weights.exists() else {},
            graph=b"" if weights.exists() else (directory / _GRAPH).read_bytes(),
            history=tuple(body["history"]),
            best_epoch=body["best_epoch"],
            precision=body.get("precision", "fp32"),
            reference=Reference(**load_npz(directory / _REFERENCE, ("images", "probabilities"))),
        )
