"""Training of a classical estimator on the PCA features, and its conversion to ONNX."""

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, log_loss

from cv_factory.config.model import ModelConfig
from cv_factory.cpu import limit_library_threads
from cv_factory.models import Estimator, convert_classical, fit_classical
from cv_factory.training.callbacks import EpochCallback
from cv_factory.training.trained_model import Reference, TrainedModel
from cv_factory.training.training_job import TrainingJob

OPSET = {"": 18, "ai.onnx.ml": 3}
_BATCH = 4096


def train_classical(job: TrainingJob, on_epoch: EpochCallback) -> TrainedModel:
    """Fit on the training images' standardized features; measure on the validation images."""
    limit_library_threads()
    features = _features(job, job.train)
    estimator = fit_classical(job.model, features, job.labels[job.train], job.config.seed)
    labels = job.labels[job.validation]
    scores = estimator.predict_proba(_features(job, job.validation))
    metrics = {
        "validation_loss": float(log_loss(labels, scores, labels=np.arange(job.n_classes))),
        "validation_accuracy": float(accuracy_score(labels, scores.argmax(axis=1))),
    }
    on_epoch(1, metrics)
    probabilities = estimator.predict_proba(job.transform.model_features(job.reference))
    return TrainedModel(
        config=job.model,
        image_shape=job.image_shape,
        n_classes=job.n_classes,
        weights={},
        graph=_to_onnx(job.model, estimator, features.shape[1]),
        history=(metrics,),
        best_epoch=1,
        reference=Reference(job.reference, probabilities.astype(np.float32)),
    )


def _features(job: TrainingJob, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    batches = np.split(indices, range(_BATCH, len(indices), _BATCH))
    return np.concatenate([job.transform.model_features(job.images[batch]) for batch in batches])


def _to_onnx(model: ModelConfig, estimator: Estimator, n_features: int) -> bytes:
    """Convert to a graph from features float32 ``(N, k)`` to probabilities ``(N, K)``.

    The probabilities are the graph's last output.
    """
    graph = convert_classical(model, estimator, n_features, OPSET)
    serialized: bytes = graph.SerializeToString(deterministic=True)
    return serialized
