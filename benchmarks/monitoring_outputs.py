"""Outputs of real predictors for ``benchmarks.monitoring``: as images are, corrupted, or foreign.

A small convolutional network is trained on 10,000 images of Fashion-MNIST, and once more without
the class ``Bag``. Scored are images that neither saw.
"""

import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cv_factory.inference.predictor import Prediction
from cv_factory.inference.reference import LabeledOutputs
from cv_factory.monitoring.estimator_errors import measure_estimator_errors

Images = npt.NDArray[np.uint8]
N_TRAIN, N_VALIDATION, N_SHIFTED = 10_000, 5_000, 10_000
#: Files of the estimators' errors on the corruption suite, each on other test images.
HALVES, N_CORRUPTED = ("first half", "second half"), 2_000
#: Class that the second predictor has never seen.
NEW_CLASS = 8
_SETTINGS = (
    "data.source=fashion_mnist",
    "transform.pca.n_components=32",
    "train.epochs=5",
    "train.batch_size=128",
)


def scale_brightness(factor: float, images: Images) -> Images:
    """Multiply pixels."""
    scaled: Images = np.clip(np.rint(images * factor), 0, 255).astype(np.uint8)
    return scaled


def blur(images: Images) -> Images:
    """Blur mildly: the lowest severity of the corruption suite."""
    from cv_factory.evaluation.corruptions import corrupt

    return corrupt(images, "gaussian_blur", 1, seed=0)


def compress(images: Images) -> Images:
    """Encode as JPEG of quality 30 and decode."""
    decoded = []
    for image in images[..., 0]:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=30)
        decoded.append(np.asarray(Image.open(buffer)))
    return np.stack(decoded)[..., None]


def rotate(images: Images) -> Images:
    """Rotate by 15 degrees."""
    turned = [Image.fromarray(x).rotate(15, Image.Resampling.BILINEAR) for x in images[..., 0]]
    return np.stack([np.asarray(image) for image in turned])[..., None]


def score(predictor: Any, images: Images, labels: Any) -> LabeledOutputs:
    """Return what the predictor and its input look like."""
    from cv_factory.data.image_statistics import image_statistics

    outputs = Prediction.concatenate(
        [predictor.predict(images[i : i + 1024]) for i in range(0, len(images), 1024)]
    )
    looks = image_statistics(images)
    sides = np.full(len(images), 28.0)
    statistics = [sides, sides, looks.brightness, looks.contrast, looks.sharpness]
    table = np.stack(statistics, axis=1).astype(np.float32)
    return LabeledOutputs(labels, outputs.probabilities, outputs.features, table)


def _train(dataset: Any, config: Any, train: Any, validation: Any, rest: Any) -> Any:
    from cv_factory.data.split import Split
    from cv_factory.export.onnx_graph import export_predictor
    from cv_factory.training.train import train as train_model
    from cv_factory.transforms.fitted import fit_transform

    parts = np.sort(train), np.sort(validation), np.sort(rest)
    split = Split(*parts, 0, dataset.fingerprint)
    transform = fit_transform(dataset, split.train, config.transform)
    trained = train_model(dataset, split, transform, config.model, config.train)
    return export_predictor(trained, transform, {}, dataset, split.validation, config.calibration)


def make_outputs(folder: Path) -> None:
    """Train, score, and write ``NAME.npz`` into the folder for each kind of images."""
    from benchmarks.harness import ROOT
    from cv_factory.config.loader import load_config
    from cv_factory.config.training import TrainingPipelineConfig
    from cv_factory.data.ingest import ingest

    config = load_config(
        TrainingPipelineConfig, ROOT / "configs" / "training.yaml", overrides=list(_SETTINGS)
    )
    dataset = ingest(config.data)
    order = np.random.default_rng(0).permutation(len(dataset.labels))
    _score_shifts(folder, config, dataset, order)
    _score_new_class(folder, config, dataset, order)


def _score_shifts(folder: Path, config: Any, dataset: Any, order: Any) -> None:
    train, validation, rest = np.split(order, [N_TRAIN, N_TRAIN + N_VALIDATION])
    predictor = _train(dataset, config, train, validation, rest)
    images, labels = np.asarray(dataset.images), dataset.labels
    fitting = _write(folder, "validation", predictor, images[validation], labels[validation])
    for half, name in enumerate(HALVES):
        part = rest[half * N_CORRUPTED : (half + 1) * N_CORRUPTED]
        rows = measure_estimator_errors(predictor, fitting, images[part], labels[part], half)
        text = json.dumps([asdict(row) for row in rows])
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    _write(folder, "pool", predictor, images[rest], labels[rest])
    some = rest[:N_SHIFTED]
    for name, change in SHIFTS.items():
        _write(folder, name, predictor, change(images[some]), labels[some])


def _score_new_class(folder: Path, config: Any, dataset: Any, order: Any) -> None:
    """Train without a class, whose images are then foreign."""
    labels = dataset.labels
    old = order[labels[order] != NEW_CLASS]
    kept = dataset.manifest.iloc[old].reset_index(drop=True)
    kept["label"] = kept["label"] - (kept["label"] > NEW_CLASS)
    names = tuple(name for i, name in enumerate(dataset.class_names) if i != NEW_CLASS)
    images = np.asarray(dataset.images)
    nine = replace(dataset, images=images[old], manifest=kept, class_names=names, backing=None)
    parts = np.split(np.arange(len(old)), [N_TRAIN, N_TRAIN + N_VALIDATION])
    predictor = _train(nine, config, *parts)
    for name, part in (("validation of nine", parts[1]), ("pool of nine", parts[2])):
        _write(folder, name, predictor, nine.images[part], nine.labels[part])
    is_new = labels == NEW_CLASS
    _write(folder, "new class", predictor, images[is_new], labels[is_new])


def _write(folder: Path, name: str, predictor: Any, images: Images, labels: Any) -> LabeledOutputs:
    outputs = score(predictor, images, labels)
    np.savez(folder / f"{name}.npz", **vars(outputs))
    print(f"{name}: {len(images):,} images scored", flush=True)
    return outputs


#: Changes of images, by name.
SHIFTS: dict[str, Callable[[Images], Images]] = {
    "brightness +10 %": partial(scale_brightness, 1.1),
    "brightness -10 %": partial(scale_brightness, 0.9),
    "mild blur": blur,
    "JPEG 30": compress,
    "rotation 15°": rotate,
}
