"""Training of a classical estimator on the PCA features, and its conversion to ONNX."""

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, log_loss

from cv_factory.config.model import ModelConfig
from cv_factory.config.train import TrainConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.models import Estimator, convert_classical, fit_classical
from cv_factory.training.callbacks import EpochCallback
from cv_factory.training.trained_model import Reference, TrainedModel
from cv_factory.transforms.fitted import FittedTransform

OPSET = {"": 18, "ai.onnx.ml": 3}
_BATCH = 4096


def train_classical(
    dataset: ImageDataset,
    split: Split,
    transform: FittedTransform,
    model: ModelConfig,
    config: TrainConfig,
    reference: npt.NDArray[np.uint8],
    on_epoch: EpochCallback,
) -> TrainedModel:
    """Fit on the training images' standardized features; measure on the validation images.

    Args and errors as for ``cv_factory.training.train.train``; ``reference`` is uint8
    ``(n, H, W, C)``.
    """
    features = _features(dataset, split.train, transform)
    labels = dataset.labels
    estimator = fit_classical(model, features, labels[split.train], config.seed)
    n_classes = len(dataset.class_names)
    validation = estimator.predict_proba(_features(dataset, split.validation, transform))
    classes = np.arange(n_classes)
    metrics = {
        "validation_loss": float(log_loss(labels[split.validation], validation, labels=classes)),
        "validation_accuracy": float(
            accuracy_score(labels[split.validation], validation.argmax(axis=1))
        ),
    }
    on_epoch(1, metrics)
    probabilities = estimator.predict_proba(transform.model_features(reference))
    return TrainedModel(
        config=model,
        image_shape=dataset.image_shape,
        n_classes=n_classes,
        weights={},
        graph=_to_onnx(model, estimator, features.shape[1]),
        history=(metrics,),
        best_epoch=1,
        reference=Reference(reference, probabilities.astype(np.float32)),
    )


def _features(
    dataset: ImageDataset, indices: npt.NDArray[np.int64], transform: FittedTransform
) -> npt.NDArray[np.float32]:
    batches = dataset.batches(indices, _BATCH)
    return np.concatenate([transform.model_features(batch) for batch in batches])


def _to_onnx(model: ModelConfig, estimator: Estimator, n_features: int) -> bytes:
    """Convert to a graph from features float32 ``(N, k)`` to probabilities ``(N, K)``.

    The probabilities are the graph's last output.
    """
    graph = convert_classical(model, estimator, n_features, OPSET)
    serialized: bytes = graph.SerializeToString(deterministic=True)
    return serialized
