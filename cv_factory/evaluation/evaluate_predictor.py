"""Evaluates a predictor on images of a dataset: scores, metrics and behavioral checks."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.evaluation import behavioral_checks
from cv_factory.evaluation.behavior import Behavior, CorruptionResult
from cv_factory.evaluation.evaluate_probabilities import evaluate
from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.evaluation.explain import explain_chosen
from cv_factory.evaluation.metric_functions import EvaluationError
from cv_factory.evaluation.slices import assign_slices
from cv_factory.inference.predictor import Prediction, Predictor
from cv_factory.inference.reference import Reference
from cv_factory.progress import track

_BATCH = 1024
Indices = npt.NDArray[np.int64]


def evaluate_predictor(
    predictor: Predictor,
    dataset: ImageDataset,
    indices: Indices,
    config: EvaluateConfig,
    float_predictor: Predictor | None = None,
    reference: Reference | None = None,
) -> Evaluation:
    """Evaluate a predictor on the images at ``indices`` and run the behavioral checks.

    Args:
        predictor: Is evaluated.
        dataset: Its images.
        indices: Of the test split.
        config: What is measured.
        float_predictor: The same in float32, to measure what fewer bits have cost.
        reference: Of this predictor, and of these images: outputs for them and the accuracy on
            corrupted images are taken from there, as far as it holds them.

    Raises:
        EvaluationError: The predictor's classes or input shape are not the dataset's, or a slice
            names a column that the manifest does not have.
    """
    if reference is not None and reference.predictor_fingerprint != predictor.fingerprint:
        reference = None
    outputs = _read_outputs(reference, predictor, dataset.labels[indices])
    if outputs is None:
        outputs = score(predictor, dataset, indices)
    scores = outputs.probabilities
    behavior = _run_behavioral_checks(predictor, dataset, indices, scores, config, reference)
    if float_predictor is not None:
        float_scores = score(float_predictor, dataset, indices).probabilities
        labels = dataset.labels[indices]
        cost = behavioral_checks.compare_precision(
            predictor, float_predictor, scores, float_scores, labels
        )
        behavior = replace(behavior, precision=cost)
    behavior = replace(
        behavior,
        familiarity=behavioral_checks.measure_familiarity(predictor, outputs, config.confidence),
    )
    return _measure(predictor, dataset, indices, scores, config, behavior)


def rescore_predictor(
    predictor: Predictor, dataset: ImageDataset, indices: Indices, config: EvaluateConfig
) -> Evaluation:
    """Evaluate a predictor for a comparison: its answers to these images, and nothing more.

    Raises:
        EvaluationError: As for ``evaluate_predictor``.
    """
    scores = score(predictor, dataset, indices).probabilities
    return _measure(predictor, dataset, indices, scores, config, Behavior())


def score(predictor: Predictor, dataset: ImageDataset, indices: Indices) -> Prediction:
    """Return the predictor's outputs for the images at ``indices``.

    Raises:
        EvaluationError: The predictor's classes or input shape are not the dataset's.
    """
    if predictor.contract.class_names != dataset.class_names:
        raise EvaluationError(
            f"The predictor knows the classes {', '.join(predictor.contract.class_names)}; the "
            f"dataset has {', '.join(dataset.class_names)}."
        )
    if predictor.contract.input_shape != dataset.image_shape:
        raise EvaluationError(
            f"The predictor takes images of {predictor.contract.input_shape}, the dataset has "
            f"{dataset.image_shape}."
        )
    batches = dataset.batches(indices, _BATCH)
    total = -(-len(indices) // _BATCH)
    outputs = [
        predictor.predict(batch)
        for batch in track(batches, f"Scoring {len(indices)} test images in batches", total)
    ]
    return Prediction.concatenate(outputs)


def _read_outputs(
    reference: Reference | None, predictor: Predictor, labels: npt.NDArray[np.int64]
) -> Prediction | None:
    """Return a reference's outputs for the test images; None where it holds a sample of them."""
    if reference is None or not np.array_equal(reference.test.labels, labels):
        return None
    scores, outputs = reference.unfamiliarity, reference.test
    if scores is None and predictor.contract.familiarity is not None:
        return None
    return Prediction(outputs.probabilities, outputs.features, scores)


def _measure(
    predictor: Predictor,
    dataset: ImageDataset,
    indices: Indices,
    scores: npt.NDArray[np.float32],
    config: EvaluateConfig,
    behavior: Behavior,
) -> Evaluation:
    rows, labels = dataset.manifest.iloc[indices], dataset.labels[indices]
    return evaluate(
        scores,
        labels,
        rows["id"].tolist(),
        predictor.contract.class_names,
        predictor.fingerprint,
        config,
        slices=assign_slices(
            rows, labels, dataset.class_names, config.slices, config.slice_quantiles
        ),
        behavior=behavior,
    )


def _run_behavioral_checks(
    predictor: Predictor,
    dataset: ImageDataset,
    indices: Indices,
    scores: npt.NDArray[np.float32],
    config: EvaluateConfig,
    reference: Reference | None,
) -> Behavior:
    labels, predicted = dataset.labels[indices], scores.argmax(axis=1)
    confidence = scores[np.arange(len(scores)), predicted].astype(np.float64)
    ids = dataset.manifest["id"].iloc[indices].tolist()
    images = _SelectedImages(dataset, indices)
    few = behavioral_checks.evenly_spread(len(indices), max(config.robustness_images, 64))
    is_blank = dataset.manifest["contrast"].to_numpy()[indices] == 0
    sample = images[few]
    corruptions: tuple[CorruptionResult, ...] = ()
    if reference is not None:
        corruptions = behavioral_checks.read_robustness(reference, config.confidence)
    elif config.robustness_images:
        corruptions = behavioral_checks.measure_robustness(predictor, sample, labels[few], config)
    return Behavior(
        corruptions=corruptions,
        consistency=behavioral_checks.measure_consistency(
            predictor, sample, flip=config.horizontal_flip
        ),
        cost=behavioral_checks.measure_cost(predictor, sample, config.latency_runs),
        explanations=explain_chosen(
            predictor,
            images,
            ids,
            labels,
            predicted,
            confidence,
            config.explained_per_class,
            excluded=is_blank,
        ),
        confused=behavioral_checks.sample_confused(
            images, ids, labels, predicted, np.where(is_blank, 0, confidence)
        ),
    )


class _SelectedImages:
    """The images at some indices of a dataset, read when they are asked for."""

    def __init__(self, dataset: ImageDataset, indices: Indices) -> None:
        self._images, self._indices = dataset.images, indices

    def __getitem__(self, places: Indices) -> npt.NDArray[np.uint8]:
        """Return the images at the places, uint8 ``(n, H, W, C)``."""
        return self._images[self._indices[places]]
