"""Behavioral checks of a predictor: robustness to corruptions, consistency, latency and size."""

import platform
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.cpu import available_cpus
from cv_factory.evaluation.behavior import (
    ConfusedPair,
    Consistency,
    CorruptionResult,
    Cost,
    FamiliarityResult,
    PrecisionCost,
)
from cv_factory.evaluation.corruptions import SEVERITIES, corrupt, corruption_names
from cv_factory.evaluation.intervals import wilson
from cv_factory.inference.predictor import Prediction, Predictor
from cv_factory.inference.reference import Reference
from cv_factory.progress import track

Images = NDArray[np.uint8]
_CONSISTENCY_IMAGES = 64
_LATENCY_BATCHES = (1, 32)
_WARM_UP_CALLS = 3
_CONFUSED_PAIRS, _CONFUSED_IMAGES = 6, 8
_NOISE_IMAGES = 256


def measure_familiarity(
    predictor: Predictor, outputs: Prediction, confidence: float
) -> FamiliarityResult | None:
    """Count the unfamiliar ones among the test images, and among images of random pixels.

    Args:
        predictor: Is evaluated.
        outputs: Its outputs for the test images.
        confidence: Of the interval.

    Returns:
        The counts; None if the predictor does not score unfamiliarity.
    """
    familiarity = predictor.contract.familiarity
    if familiarity is None or outputs.unfamiliarity is None:
        return None
    shape = (_NOISE_IMAGES, *predictor.contract.input_shape)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    is_noise_unfamiliar = [row.is_unfamiliar for row in predictor.predict(noise).rows()]
    n_images, n_unfamiliar = len(outputs), int((outputs.unfamiliarity > 1).sum())
    low, high = wilson(n_unfamiliar, n_images, confidence)
    return FamiliarityResult(
        n_images=n_images,
        n_unfamiliar=n_unfamiliar,
        low=low,
        high=high,
        false_rate=familiarity.false_rate,
        n_validation=familiarity.n_images,
        noise_share=is_noise_unfamiliar.count(True) / _NOISE_IMAGES,
        n_noise=_NOISE_IMAGES,
    )


def evenly_spread(n: int, at_most: int) -> NDArray[np.int64]:
    """Return up to ``at_most`` of ``n`` places, evenly spread, int64."""
    return np.unique(np.linspace(0, n - 1, min(n, at_most)).astype(np.int64))


def measure_robustness(
    predictor: Predictor, images: Images, labels: NDArray[np.int64], config: EvaluateConfig
) -> tuple[CorruptionResult, ...]:
    """Score the images under every corruption and severity, and as they are (severity 0).

    Args:
        predictor: Scores them.
        images: Uint8 ``(n, H, W, C)``.
        labels: True classes, int64 ``(n,)``.
        config: Seed and confidence.
    """
    cases = [(name, severity) for name in corruption_names() for severity in SEVERITIES]
    results = []
    for name, severity in track(cases, f"Scoring {len(images)} images under corruptions"):
        corrupted = corrupt(images, name, severity, config.seed)
        predicted = predictor.predict(corrupted).probabilities.argmax(axis=1)
        hits, n = int((predicted == labels).sum()), len(labels)
        low, high = wilson(hits, n, config.confidence)
        results.append(CorruptionResult(name, severity, hits / n, low, high, n))
    return tuple(results)


def read_robustness(reference: Reference, confidence: float) -> tuple[CorruptionResult, ...]:
    """Return the accuracy on corrupted images that was measured for a reference.

    Args:
        reference: Of the predictor that is evaluated; may hold no such accuracy.
        confidence: Of the intervals.
    """
    measured = {
        (row.corruption, row.severity): row for row in reference.estimator_errors if row.severity
    }
    results = []
    for (name, severity), row in measured.items():
        hits = round(row.accuracy * row.n_images)
        low, high = wilson(hits, row.n_images, confidence)
        accuracy = hits / row.n_images
        results.append(CorruptionResult(name, severity, accuracy, low, high, row.n_images))
    return tuple(results)


def measure_consistency(predictor: Predictor, images: Images, *, flip: bool) -> Consistency:
    """Compare predictions of the same images one by one, in a batch, twice, and mirrored.

    Args:
        predictor: The predictor to check.
        images: Uint8 ``(n, H, W, C)``; the first 64 count, for the mirror images all.
        flip: Whether labels survive a mirror image.
    """
    sample = images[:_CONSISTENCY_IMAGES]
    together = predictor.predict(sample).probabilities
    again = predictor.predict(sample).probabilities
    one_by_one = np.concatenate(
        [predictor.predict(sample[i : i + 1]).probabilities for i in range(len(sample))]
    )
    agreement = None
    if flip:
        straight = predictor.predict(images).probabilities.argmax(axis=1)
        mirrored = predictor.predict(np.ascontiguousarray(images[:, :, ::-1]))
        agreement = float((straight == mirrored.probabilities.argmax(axis=1)).mean())
    return Consistency(
        n_images=len(sample),
        batch_difference=float(np.abs(together - one_by_one).max()),
        repeat_difference=float(np.abs(together - again).max()),
        flip_agreement=agreement,
    )


def measure_cost(predictor: Predictor, images: Images, runs: int) -> Cost:
    """Time calls on this machine, and count what the graph holds.

    Args:
        predictor: The predictor to time.
        images: Uint8 ``(n, H, W, C)``, repeated where a batch needs more.
        runs: Timed calls for each batch size; 0 for none.
    """
    from cv_factory.evaluation.graph_size import count

    latency: dict[str, float] = {}
    for size in _LATENCY_BATCHES if runs else ():
        batch = np.ascontiguousarray(np.resize(images, (size, *images.shape[1:])))
        p50, p95 = np.percentile(_call_times(predictor, batch, runs), [50, 95])
        latency[f"batch_{size}_p50"], latency[f"batch_{size}_p95"] = float(p50), float(p95)
    parameters, operations, operators = count(predictor.graph)
    return Cost(
        latency_ms=latency,
        size_bytes=len(predictor.graph),
        parameters=parameters,
        operations=operations,
        n_operators=operators,
        threads=available_cpus(),
        processor=f"{platform.machine()}, {platform.system()}",
    )


def compare_precision(
    predictor: Predictor,
    float_predictor: Predictor,
    scores: NDArray[np.float32],
    float_scores: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> PrecisionCost:
    """Compare a predictor of fewer bits with the one in float32 that it was made of.

    Args:
        predictor: Of fewer bits.
        float_predictor: In float32.
        scores: Probabilities of the test images by ``predictor``, float32 ``(N, K)``.
        float_scores: Likewise by ``float_predictor``.
        labels: True classes, int64 ``(N,)``.
    """
    predicted, float_predicted = scores.argmax(axis=1), float_scores.argmax(axis=1)
    return PrecisionCost(
        precision=predictor.contract.precision,
        accuracy=float((predicted == labels).mean()),
        float_accuracy=float((float_predicted == labels).mean()),
        agreement=float((predicted == float_predicted).mean()),
        largest_difference=float(np.abs(scores - float_scores).max()),
        size_bytes=len(predictor.graph),
        float_size_bytes=len(float_predictor.graph),
    )


class IndexableImages(Protocol):
    """Anything that gives uint8 ``(n, H, W, C)`` for n places, such as an array."""

    def __getitem__(self, places: NDArray[np.int64]) -> Images:
        """Return the images at these places."""


def sample_confused(
    images: IndexableImages,
    ids: Sequence[str],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    confidence: NDArray[np.float64],
) -> tuple[ConfusedPair, ...]:
    """Return images of the pairs of classes confused most often, the most confident errors first.

    Args:
        images: The N images; only those returned are read.
        ids: N ids.
        labels: True classes, int64 ``(N,)``.
        predicted: Predicted classes, int64 ``(N,)``.
        confidence: Their probabilities, float64 ``(N,)``; 0 for images to be shown last.
    """
    wrong = np.flatnonzero(labels != predicted)
    if not wrong.size:
        return ()
    pairs = np.stack([labels[wrong], predicted[wrong]], axis=1)
    unique, members, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    confused_pairs = []
    for place in np.argsort(-counts, kind="stable")[:_CONFUSED_PAIRS]:
        of_pair = wrong[members.ravel() == place]
        best = of_pair[np.argsort(-confidence[of_pair], kind="stable")][:_CONFUSED_IMAGES]
        label, predicted_label = (int(value) for value in unique[place])
        confused_pairs.append(
            ConfusedPair(
                label, predicted_label, tuple(ids[i] for i in best), np.asarray(images[best])
            )
        )
    return tuple(confused_pairs)


def _call_times(predictor: Predictor, batch: Images, runs: int) -> NDArray[np.float64]:
    """Return the milliseconds of each call, float64 ``(runs,)``."""
    times = np.empty(runs)
    for i in range(-_WARM_UP_CALLS, runs):
        start = time.perf_counter()
        predictor.predict(batch)
        if i >= 0:
            times[i] = 1e3 * (time.perf_counter() - start)
    return times
