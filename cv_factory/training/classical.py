"""Training of a classical estimator on features, and its conversion to ONNX."""

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, log_loss

from cv_factory.config.model import ModelConfig
from cv_factory.cpu import limit_library_threads
from cv_factory.features.image_features import ImageFeatures
from cv_factory.models import Estimator, Examples, choose_settings, convert_classical, fit_classical
from cv_factory.training.callbacks import EpochCallback
from cv_factory.training.class_weights import class_weights
from cv_factory.training.trained_model import Reference, TrainedModel
from cv_factory.training.training_job import TrainingJob, select_reference_indices

OPSET = {"": 18, "ai.onnx.ml": 3}
_BATCH = 4096
#: Validation images of each class from which on a penalty can be chosen on them: one a fold.
_MIN_VALIDATION_IMAGES = 3


def train_classical(
    job: TrainingJob,
    groups: npt.NDArray[np.int64],
    on_epoch: EpochCallback,
    image_features: ImageFeatures | None,
) -> TrainedModel:
    """Fit on the training images' features; measure on the validation images.

    Args:
        job: Data, model and settings.
        groups: Leakage group of each image, int64.
        on_epoch: Called once.
        image_features: Of all images, by a backbone; None for the standardized PCA features.
    """
    limit_library_threads()
    originals = _examples(job, job.train, image_features)
    model = _choose_settings(job, originals, groups, image_features)
    examples = _add_mirrored(originals, job, image_features)
    estimator = fit_classical(model, examples, job.config.seed)
    labels = job.labels[job.validation]
    scores = estimator.predict_proba(_features(job, job.validation, image_features))
    metrics = {
        "validation_loss": float(log_loss(labels, scores, labels=np.arange(job.n_classes))),
        "validation_accuracy": float(accuracy_score(labels, scores.argmax(axis=1))),
    }
    on_epoch(1, metrics)
    reference = select_reference_indices(job.validation)
    probabilities = estimator.predict_proba(_features(job, reference, image_features))
    return TrainedModel(
        config=model,
        image_shape=job.image_shape,
        n_classes=job.n_classes,
        weights={},
        graph=_to_onnx(model, estimator, examples.features.shape[1]),
        history=(metrics,),
        best_epoch=1,
        reference=Reference(job.reference, probabilities.astype(np.float32)),
    )


def _choose_settings(
    job: TrainingJob,
    training: Examples,
    groups: npt.NDArray[np.int64],
    image_features: ImageFeatures | None,
) -> ModelConfig:
    """Choose what the model leaves open, by cross-validation on the training images.

    A fine-tuned backbone has seen their labels, so that no fold of them is held out: there it is
    the validation images, if there are enough of each class.
    """
    is_tuned = image_features is not None and image_features.backbone.fine_tuned_epochs > 0
    counts = np.bincount(job.labels[job.validation], minlength=job.n_classes)
    if is_tuned and counts.min() >= _MIN_VALIDATION_IMAGES:
        examples = _examples(job, job.validation, image_features)
        return choose_settings(job.model, examples, groups[job.validation])
    return choose_settings(job.model, training, groups[job.train])


def _examples(
    job: TrainingJob, indices: npt.NDArray[np.int64], image_features: ImageFeatures | None
) -> Examples:
    """Return features and labels of some images, with the weights of their classes."""
    features, labels = _features(job, indices, image_features), job.labels[indices]
    weight_by_class = class_weights(labels, job.n_classes, job.config)
    weights = None if weight_by_class is None else weight_by_class[labels].astype(np.float64)
    return Examples(features, labels, weights)


def _add_mirrored(
    examples: Examples, job: TrainingJob, image_features: ImageFeatures | None
) -> Examples:
    """Add the features of the mirrored images, if there are any; each pair counts as one image."""
    if image_features is None or image_features.mirrored is None:
        return examples
    n, weights = len(examples.labels), examples.weights
    both = np.concatenate([examples.features, image_features.mirrored[job.train]])
    halves = np.full(n, 0.5) if weights is None else weights / 2
    return Examples(both, np.tile(examples.labels, 2), np.tile(halves, 2))


def _features(
    job: TrainingJob, indices: npt.NDArray[np.int64], image_features: ImageFeatures | None
) -> npt.NDArray[np.float32]:
    """Return what the model sees of some images, float32 ``(n, k)``."""
    if image_features is not None:
        return image_features.values[indices]
    batches = np.split(indices, range(_BATCH, len(indices), _BATCH))
    return np.concatenate([job.transform.model_features(job.images[batch]) for batch in batches])


def _to_onnx(model: ModelConfig, estimator: Estimator, n_features: int) -> bytes:
    """Convert to a graph from features float32 ``(N, k)`` to probabilities ``(N, K)``.

    The probabilities are the graph's last output.
    """
    graph = convert_classical(model, estimator, n_features, OPSET)
    serialized: bytes = graph.SerializeToString(deterministic=True)
    return serialized
