"""Runs a predictor over images of a dataset and measures what it answers."""

import numpy as np
import numpy.typing as npt

from cv_factory.config import EvaluateConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.evaluation.evaluation import Evaluation, evaluate
from cv_factory.evaluation.metrics import EvaluationError
from cv_factory.inference.predictor import Predictor
from cv_factory.progress import track

_BATCH = 1024


def evaluate_predictor(
    predictor: Predictor,
    dataset: ImageDataset,
    indices: npt.NDArray[np.int64],
    config: EvaluateConfig,
) -> Evaluation:
    """Evaluate a predictor on the images at ``indices``.

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
    scores = [
        predictor.predict(batch).probabilities
        for batch in track(batches, f"Scoring {len(indices)} test images in batches", total)
    ]
    return evaluate(
        np.concatenate(scores),
        dataset.labels[indices],
        dataset.manifest["id"].iloc[indices].tolist(),
        predictor.contract.class_names,
        predictor.fingerprint,
        config,
    )
