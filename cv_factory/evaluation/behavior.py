"""Results of behavioral checks: robustness, consistency, latency and size, explanations.

Values and their format on disk; ``behavioral_checks`` and ``explain`` compute them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cv_factory.artifacts.arrays import load_npz
from cv_factory.errors import ArtifactError

FILE = "samples.npz"
_ARRAYS = ("explained_images", "explained_heat", "confused_images")


@dataclass(frozen=True)
class CorruptionResult:
    """Accuracy on images that were corrupted in one way, with its interval.

    Attributes:
        name: Such as ``gaussian_noise``.
        severity: 1, 2 or 3.
        accuracy: Share of right answers.
        low: Lower end of the interval.
        high: Upper end.
        n_images: How many images were corrupted.
    """

    name: str
    severity: int
    accuracy: float
    low: float
    high: float
    n_images: int


@dataclass(frozen=True)
class Consistency:
    """Whether the predictor answers the same question in the same way.

    Attributes:
        n_images: How many images were asked about.
        batch_difference: Largest difference in probability between batch 1 and one batch of all.
        repeat_difference: Largest difference in probability between two equal calls.
        flip_agreement: Share of images whose class survives a mirror image; None if not asked for.
    """

    n_images: int
    batch_difference: float
    repeat_difference: float
    flip_agreement: float | None


@dataclass(frozen=True)
class Cost:
    """Cost of running the predictor: latency, size, parameters, operations.

    Attributes:
        latency_ms: Milliseconds a call by ``batch_1_p50``, ``batch_1_p95``, ``batch_32_p50`` and
            ``batch_32_p95``; empty if not timed.
        size_bytes: Bytes of the ONNX graph.
        parameters: Numbers in it that are not computed from the input.
        operations: Multiplications and additions of convolutions and matrix products, one image.
        n_operators: Nodes of the graph by operator.
        threads: Threads that the predictor uses.
        processor: The machine on which it was timed.
    """

    latency_ms: Mapping[str, float]
    size_bytes: int
    parameters: int
    operations: int
    n_operators: Mapping[str, int]
    threads: int
    processor: str

    def figures(self) -> dict[str, float]:
        """Return the figures that a gate may bound, by name."""
        latency = {f"latency_ms_{name}": value for name, value in self.latency_ms.items()}
        return latency | {
            "size_mb": self.size_bytes / 1e6,
            "parameters": float(self.parameters),
            "operations": float(self.operations),
        }


@dataclass(frozen=True)
class PrecisionCost:
    """Loss of a quantized predictor against float32, on the same test images.

    Attributes:
        precision: Such as ``int8``.
        accuracy: Share of right answers.
        float_accuracy: The same in float32.
        agreement: Share of images that both give the same class.
        largest_difference: In any probability.
        size_bytes: Bytes of the ONNX graph.
        float_size_bytes: The same in float32.
    """

    precision: str
    accuracy: float
    float_accuracy: float
    agreement: float
    largest_difference: float
    size_bytes: int
    float_size_bytes: int

    @property
    def accuracy_lost(self) -> float:
        """Float32's accuracy less this one's; negative where fewer bits did better."""
        return self.float_accuracy - self.accuracy


@dataclass(frozen=True)
class FamiliarityResult:
    """Images that the predictor calls unfamiliar: of the test split, and of random pixels.

    Attributes:
        n_images: Number of test images.
        n_unfamiliar: How many of them are called unfamiliar.
        low: Lower end of the interval of their share.
        high: Upper end.
        false_rate: The share that the threshold was set for.
        n_validation: Number of validation images that set the threshold.
        noise_share: Share of images of random pixels that are called unfamiliar.
        n_noise: Number of images of random pixels.
    """

    n_images: int
    n_unfamiliar: int
    low: float
    high: float
    false_rate: float
    n_validation: int
    noise_share: float
    n_noise: int

    @property
    def share(self) -> float:
        """Share of the test images that are called unfamiliar."""
        return self.n_unfamiliar / self.n_images


@dataclass(frozen=True, eq=False)
class Explanation:
    """Attribution of one image's predicted class.

    Attributes:
        id: Of the image.
        label: Its true class.
        predicted: The predicted class, which is explained.
        confidence: Its probability.
        method: Such as ``occlusion``.
        image: Uint8 ``(H, W, C)``.
        heat: Float32 ``(H, W)``: positive speaks for the predicted class, negative against it.
    """

    id: str
    label: int
    predicted: int
    confidence: float
    method: str
    image: NDArray[np.uint8]
    heat: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ConfusedPair:
    """Images of one class that were taken for another: ids, and uint8 ``(n, H, W, C)``."""

    label: int
    predicted: int
    ids: tuple[str, ...]
    images: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Behavior:
    """Behavior of one predictor when run; parts that were switched off are empty."""

    corruptions: tuple[CorruptionResult, ...] = ()
    consistency: Consistency | None = None
    cost: Cost | None = None
    explanations: tuple[Explanation, ...] = ()
    confused: tuple[ConfusedPair, ...] = ()
    precision: PrecisionCost | None = None
    familiarity: FamiliarityResult | None = None

    @property
    def corruption_accuracy(self) -> float | None:
        """Mean accuracy over all corruptions and severities; None if nothing was corrupted."""
        if not self.corruptions:
            return None
        return float(np.mean([result.accuracy for result in self.corruptions]))

    def figures(self) -> dict[str, float]:
        """Return every figure that a gate may bound, by name; what was not measured is absent."""
        figures = self.cost.figures() if self.cost else {}
        if self.corruption_accuracy is not None:
            figures["corruption_accuracy"] = self.corruption_accuracy
        if self.consistency is not None and self.consistency.flip_agreement is not None:
            figures["flip_agreement"] = self.consistency.flip_agreement
        if self.precision is not None:
            figures["accuracy_lost_to_precision"] = max(self.precision.accuracy_lost, 0.0)
        if self.familiarity is not None:
            figures["unfamiliar_share"] = self.familiarity.share
        return figures

    def save_arrays(self, directory: Path) -> None:
        """Write the images into ``samples.npz``."""
        explained = self.explanations
        np.savez(
            directory / FILE,
            explained_images=_stack([e.image for e in explained], np.uint8, 3),
            explained_heat=_stack([e.heat for e in explained], np.float32, 2),
            confused_images=_stack([i for pair in self.confused for i in pair.images], np.uint8, 3),
        )

    def to_body(self) -> "BehaviorBody":
        """Return everything but the images, for the header."""
        return BehaviorBody(
            corruptions=list(self.corruptions),
            consistency=self.consistency,
            cost=self.cost,
            explanations=[
                ExplanationRow(
                    id=e.id,
                    label=e.label,
                    predicted=e.predicted,
                    confidence=e.confidence,
                    method=e.method,
                )
                for e in self.explanations
            ],
            confused=[
                ConfusedRow(label=p.label, predicted=p.predicted, ids=list(p.ids))
                for p in self.confused
            ],
            precision=self.precision,
            familiarity=self.familiarity,
        )

    @classmethod
    def load(cls, directory: Path, body: "BehaviorBody") -> "Behavior":
        """Read what ``save_arrays`` and ``to_body`` stored.

        Raises:
            ArtifactError: The images are missing, or there are more or fewer than the body says.
        """
        arrays = load_npz(directory / FILE, _ARRAYS)
        images, heat, confused = (arrays[name] for name in _ARRAYS)
        sizes = [len(row.ids) for row in body.confused]
        if not len(images) == len(heat) == len(body.explanations) or len(confused) != sum(sizes):
            raise ArtifactError(f"{directory / FILE} holds other images than its header lists.")
        ends = np.cumsum([0, *sizes])
        return cls(
            corruptions=tuple(body.corruptions),
            consistency=body.consistency,
            cost=body.cost,
            explanations=tuple(
                Explanation(**row.model_dump(), image=images[i], heat=heat[i])
                for i, row in enumerate(body.explanations)
            ),
            confused=tuple(
                ConfusedPair(
                    row.label, row.predicted, tuple(row.ids), confused[ends[i] : ends[i + 1]]
                )
                for i, row in enumerate(body.confused)
            ),
            precision=body.precision,
            familiarity=body.familiarity,
        )


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ExplanationRow(_Strict):
    """An explanation without its images."""

    id: str
    label: int
    predicted: int
    confidence: float
    method: str


class ConfusedRow(_Strict):
    """A confused pair without its images."""

    label: int
    predicted: int
    ids: list[str]


class BehaviorBody(_Strict):
    """A Behavior in the header of an Evaluation."""

    corruptions: list[CorruptionResult] = []
    consistency: Consistency | None = None
    cost: Cost | None = None
    explanations: list[ExplanationRow] = []
    confused: list[ConfusedRow] = []
    precision: PrecisionCost | None = None
    familiarity: FamiliarityResult | None = None

    def to_json(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "corruptions": [asdict(result) for result in self.corruptions],
            "consistency": asdict(self.consistency) if self.consistency else None,
            "cost": asdict(self.cost) if self.cost else None,
            "explanations": [row.model_dump() for row in self.explanations],
            "confused": [row.model_dump() for row in self.confused],
            "precision": asdict(self.precision) if self.precision else None,
            "familiarity": asdict(self.familiarity) if self.familiarity else None,
        }


def _stack(
    arrays: list[NDArray[np.generic]], dtype: type[np.generic], ndim: int
) -> NDArray[np.generic]:
    if not arrays:
        return np.empty((0,) * (ndim + 1), dtype=dtype)
    return np.stack(arrays).astype(dtype)
