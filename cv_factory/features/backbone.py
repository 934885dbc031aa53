"""Backbone: a pretrained network without its head, as an ONNX graph."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from cv_factory.artifacts.artifact import Artifact
from cv_factory.errors import ArtifactError

_GRAPH = "backbone.onnx"


@dataclass(frozen=True)
class Backbone(Artifact):
    """ONNX graph from square RGB images to features, with where its weights come from.

    Attributes:
        graph: Input ``pixels`` float32 ``(N, 3, S, S)`` from 0 to 255, output ``backbone_features``
            float32 ``(N, F)``; the normalization that the weights expect is inside.
        name: As in ``features.backbone``.
        input_size: S, pixels a side.
        n_features: F.
        weights_sha256: SHA-256 of the file with the weights.
        license: SPDX identifier of the weights' license, or where it is stated.
        fine_tuned_epochs: Epochs that the weights were trained on, on the dataset at hand.
        fine_tuned_precision: Of the forward passes meanwhile: fp32, bf16 or fp16.
    """

    KIND: ClassVar[str] = "backbone"
    VERIFY_LARGE_FILES: ClassVar[bool] = True

    graph: bytes
    name: str
    input_size: int
    n_features: int
    weights_sha256: str
    license: str
    fine_tuned_epochs: int = 0
    fine_tuned_precision: str | None = None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the graph."""
        return hashlib.sha256(self.graph).hexdigest()

    def _write_files(self, directory: Path) -> dict[str, str | None]:
        (directory / _GRAPH).write_bytes(self.graph)
        return {_GRAPH: self.fingerprint}

    def _header(self) -> dict[str, Any]:
        tuned = {
            "fine_tuned_epochs": self.fine_tuned_epochs,
            "fine_tuned_precision": self.fine_tuned_precision,
        }
        return {
            "name": self.name,
            "input_size": self.input_size,
            "n_features": self.n_features,
            "weights_sha256": self.weights_sha256,
            "license": self.license,
            "fingerprint": self.fingerprint,
            **{name: value for name, value in tuned.items() if value},
        }

    @classmethod
    def _from_files(cls, directory: Path, body: dict[str, Any]) -> Self:
        fingerprint = body.pop("fingerprint")
        loaded = cls((directory / _GRAPH).read_bytes(), **body)
        if loaded.fingerprint != fingerprint:
            raise ArtifactError(f"{directory / 'backbone.json'}: the fingerprint does not match.")
        return loaded
