"""Builder of the reference: a predictor's outputs for its test and validation images."""

import numpy as np
import numpy.typing as npt

from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.evaluation.behavioral_checks import evenly_spread
from cv_factory.inference.predictor import Prediction, Predictor
from cv_factory.inference.reference import STATISTICS, EstimatorError, LabeledOutputs, Reference
from cv_factory.monitoring.estimator_errors import measure_estimator_errors

#: Images of each part, evenly spread over it: more would not tell drift better.
MAX_IMAGES = 10_000
_BATCH = 1024
Indices = npt.NDArray[np.int64]


def build_reference(
    predictor: Predictor, dataset: ImageDataset, split: Split, corrupted_images: int, seed: int
) -> Reference:
    """Score up to 10,000 test and validation images each, and measure the estimators' errors.

    Args:
        predictor: Was neither fitted on the test images nor chosen by them.
        dataset: Images of the split.
        split: Test and validation part.
        corrupted_images: Number of test images that are corrupted; 0 measures no errors.
        seed: Of the corruptions.
    """
    validation, _ = _score(predictor, dataset, split.validation)
    test, unfamiliarity = _score(predictor, dataset, split.test)
    errors: tuple[EstimatorError, ...] = ()
    if corrupted_images:
        sample = split.test[evenly_spread(len(split.test), corrupted_images)]
        images, labels = dataset.images[sample], dataset.labels[sample]
        errors = measure_estimator_errors(predictor, validation, images, labels, seed)
    return Reference(
        class_names=dataset.class_names,
        predictor_fingerprint=predictor.fingerprint,
        test=test,
        validation=validation,
        estimator_errors=errors,
        unfamiliarity=unfamiliarity,
    )


def _score(
    predictor: Predictor, dataset: ImageDataset, part: Indices
) -> tuple[LabeledOutputs, npt.NDArray[np.float32] | None]:
    """Return the outputs for images of a part, and their scores of unfamiliarity, if any."""
    indices = part[evenly_spread(len(part), MAX_IMAGES)]
    outputs = Prediction.concatenate(
        [predictor.predict(batch) for batch in dataset.batches(indices, _BATCH)]
    )
    statistics = dataset.manifest[list(STATISTICS)].iloc[indices].to_numpy(np.float32)
    labels = dataset.labels[indices]
    scored = LabeledOutputs(labels, outputs.probabilities, outputs.features, statistics)
    return scored, outputs.unfamiliarity
