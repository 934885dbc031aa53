"""Computes an ``Evaluation`` from probabilities and labels; it never runs a predictor."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.evaluation import intervals
from cv_factory.evaluation import metric_functions as m
from cv_factory.evaluation.behavior import Behavior
from cv_factory.evaluation.evaluation import Evaluation, Metric, Predictions, class_rows
from cv_factory.evaluation.metrics import ScoredImages, compute_metric, metric_names
from cv_factory.evaluation.slices import measure_slices

# Rows may miss a sum of 1 by this much: float32 softmax over many classes.
_SUM_TOLERANCE = 1e-3


def evaluate(
    probabilities: m.Floats,
    labels: NDArray[np.int64],
    ids: Sequence[str],
    class_names: Sequence[str],
    predictor_fingerprint: str,
    config: EvaluateConfig,
    *,
    slices: Mapping[str, Sequence[str]] | None = None,
    behavior: Behavior | None = None,
) -> Evaluation:
    """Measure a predictor's output on the test images.

    Args:
        probabilities: Float32 or float64 ``(N, K)``, rows sum to 1.
        labels: True classes, int64 ``(N,)``.
        ids: N ids of the images, each once.
        class_names: K names, each once.
        predictor_fingerprint: Which predictor gave the probabilities.
        config: Resamples, confidence level and seed of the intervals, top k and bins.
        slices: By column, N values; see ``assign_slices``.
        behavior: Results of the behavioral checks.

    Returns:
        The evaluation; the same input gives the same one.

    Raises:
        EvaluationError: Shapes, types or values do not fit together.
    """
    _check_input(probabilities, labels, ids, class_names)
    predicted = probabilities.argmax(axis=1).astype(np.int64)
    confusion = m.confusion_matrix(labels, predicted, len(class_names))
    confidence = probabilities[np.arange(len(labels)), predicted].astype(np.float64)
    cut = {column: tuple(values) for column, values in (slices or {}).items()}
    losses = m.image_log_losses(labels, probabilities)
    return Evaluation(
        metrics=_measure(probabilities, labels, class_names, config),
        per_class=class_rows(confusion, class_names, config.confidence),
        slices=measure_slices(cut, labels == predicted, losses, config.confidence),
        confusion=confusion,
        class_names=tuple(class_names),
        confidence=config.confidence,
        top_k=config.top_k,
        calibration_bins=config.calibration_bins,
        min_slice_images=config.min_slice_images,
        predictor_fingerprint=predictor_fingerprint,
        predictions=Predictions(tuple(ids), labels, predicted, confidence, probabilities, cut),
        behavior=behavior or Behavior(),
    )


def _measure(
    probabilities: m.Floats,
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    config: EvaluateConfig,
) -> dict[str, Metric]:
    has_all = bool(np.bincount(labels, minlength=len(class_names)).all())
    influences = intervals.influence(labels, probabilities) if has_all else {}
    images = ScoredImages(labels, probabilities, config.top_k, config.calibration_bins)
    resampled = intervals.bootstrap(images, config.bootstrap_samples, config.seed)
    measured = {}
    for name in metric_names():
        value: float | None = None
        try:
            value = compute_metric(name, images)
            low, high = intervals.interval(
                name, value, resampled[name], config.confidence, influences.get(name)
            )
            measured[name] = Metric(value, low, high)
        except m.MissingClassError as error:
            absent = ", ".join(repr(class_names[index]) for index in error.classes[:10])
            measured[name] = Metric(None, reason=f"no test images of {absent}")
        except m.UndefinedMetricError as error:
            measured[name] = Metric(value, reason=str(error))
    return measured


def _check_input(
    probabilities: m.Floats,
    labels: NDArray[np.int64],
    ids: Sequence[str],
    class_names: Sequence[str],
) -> None:
    n_images, n_classes = len(ids), len(class_names)
    if n_images == 0:
        raise m.EvaluationError("There are no test images to evaluate on.")
    if n_classes < 2 or len(set(class_names)) != n_classes:
        raise m.EvaluationError(f"Class names must be two or more and differ: {class_names!r}.")
    if probabilities.shape != (n_images, n_classes) or labels.shape != (n_images,):
        raise m.EvaluationError(
            f"{n_images} ids and {n_classes} classes do not fit probabilities of shape "
            f"{probabilities.shape} and labels of shape {labels.shape}."
        )
    if probabilities.dtype not in (np.float32, np.float64) or labels.dtype != np.int64:
        raise m.EvaluationError(
            f"Probabilities are {probabilities.dtype} and labels {labels.dtype}; expected float32 "
            "or float64, and int64."
        )
    if len(set(ids)) != n_images:
        raise m.EvaluationError("An image id stands twice among the test images.")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise m.EvaluationError(f"Labels must lie between 0 and {n_classes - 1}.")
    # Written so that a NaN fails it.
    if not (probabilities >= 0).all() or not np.allclose(
        probabilities.sum(axis=1), 1.0, rtol=0.0, atol=_SUM_TOLERANCE
    ):
        raise m.EvaluationError(
            "The predictor's probabilities are negative, NaN, or do not sum to 1."
        )
