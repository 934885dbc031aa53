"""Log loss and calibration error on test images by way of calibration, over data sets and seeds.

Each data set is split and trained with the seeds 0 to 4; every way is fitted on the probabilities
of the validation images and measured on those of the test images. Fashion-MNIST is a sample of
14,000 images (Debian's package dataset-fashion-mnist, or torchvision's download). PHOTOS is a
folder of photos, one folder a class, of which 4,000 are trained on from scratch; without it there
are no photos. CACHE is a folder that keeps the probabilities of each training, so that none is
repeated.

    python -m benchmarks.calibration [PHOTOS [CACHE]]
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import ROOT, Side, describe_machine, parse_arguments, run_once, save_result

SEEDS = range(5)
_DIGITS, _FASHION = "configs/training.yaml", "configs/training_fashion_mnist.yaml"
_SAMPLE = "data.limit=14000"
_PHOTOS = ("data.source=folder", "data.limit=4000", "split.test=0.35")
#: Configuration file and settings by data set and model.
TRAININGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "digits, small_cnn": (_DIGITS, ()),
    "digits, no label smoothing": (_DIGITS, ("train.label_smoothing=0",)),
    "digits, 400 images": (_DIGITS, ("data.limit=400",)),
    "digits, logistic_regression": (_DIGITS, ("model.name=logistic_regression",)),
    "digits, random_forest": (_DIGITS, ("model.name=random_forest",)),
    "fashion_mnist, whitened_cnn": (_FASHION, (_SAMPLE, "model.channels=[32,64,128]")),
    "fashion_mnist, logistic_regression": (
        _DIGITS,
        ("data.source=fashion_mnist", _SAMPLE, "model.name=logistic_regression"),
    ),
    "photos, small_cnn": (_DIGITS, (*_PHOTOS, "train.epochs=8")),
    "photos, logistic_regression": (_DIGITS, (*_PHOTOS, "model.name=logistic_regression")),
}
_LABELS = ("validation_labels", "test_labels")

Probabilities = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Calibrator = Callable[[Probabilities, Labels], float]


def main() -> None:
    """Train, compare the ways, print a table, write the result as JSON."""
    photos, cache = parse_arguments(photos="", cache="")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(cache or scratch)
        names = [name for name in TRAININGS if photos or not name.startswith("photos")]
        rows = {name: _compare(name, photos, folder) for name in names}
    for name, ways in rows.items():
        print(f"\n{name} (n={len(SEEDS)})\n{'':34}{'temperatures':38}{'log loss':>24}{'ECE':>8}")
        for way, figures in ways.items():
            temperatures = " ".join(f"{t:6.3f}" for t in figures["temperature"])
            losses = figures["log_loss"]
            spread = f"{np.mean(losses):.4f} ({min(losses):.4f}-{max(losses):.4f})"
            error = np.mean(figures["calibration_error"])
            print(f"{way:34}{temperatures:38}{spread:>24}{error:8.4f}")
    save_result("calibration", {"results": rows, "machine": describe_machine()})


def _calibrators() -> Iterator[tuple[str, Calibrator]]:
    from cv_factory.export.calibrate import calibrate, fit_temperature

    yield "uncalibrated", lambda _p, _y: 1.0
    yield "likelihood alone", partial(fit_temperature, assumed_errors=0.0)
    for count in (0.25, 1.0, 2.0):
        yield f"{count:g} assumed errors", partial(fit_temperature, assumed_errors=count)
    yield "normal prior of log T, std 0.5", partial(_fit_with_prior, std=0.5)
    yield "mean of folds", _fit_on_folds
    yield "0.5 assumed errors", fit_temperature
    yield "0.5, checked on folds (shipped)", lambda p, y: calibrate(p, y)[0]


def _fit_with_prior(probabilities: Probabilities, labels: Labels, std: float) -> float:
    """Return the temperature of the highest posterior density, log T being normal around 0."""
    from cv_factory.evaluation.metric_functions import log_loss
    from cv_factory.export.calibrate import apply_temperature

    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 600))
    penalties = 0.5 * (np.log(grid) / std) ** 2 / len(labels)
    losses = [log_loss(labels, apply_temperature(probabilities, t)) for t in grid]
    return float(grid[np.argmin(losses + penalties)])


def _fit_on_folds(probabilities: Probabilities, labels: Labels) -> float:
    """Return the geometric mean of the temperatures that each leave a fifth of the images out."""
    from cv_factory.export.calibrate import fit_temperature

    folds = np.random.default_rng(0).permutation(len(labels)) % 5
    fitted = [
        fit_temperature(probabilities[folds != k], labels[folds != k], assumed_errors=0.0)
        for k in range(5)
    ]
    return float(np.exp(np.mean(np.log(fitted))))


def _compare(name: str, photos: str, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Return temperature, test log loss and calibration error of each seed, by way."""
    from cv_factory.evaluation.metric_functions import expected_calibration_error, log_loss
    from cv_factory.export.calibrate import apply_temperature

    rows: dict[str, dict[str, list[float]]] = {
        way: {"temperature": [], "log_loss": [], "calibration_error": []}
        for way, _ in _calibrators()
    }
    for seed in SEEDS:
        validation, validation_labels, test, labels = _probabilities(name, photos, seed, folder)
        for way, fit in _calibrators():
            temperature = round(fit(validation, validation_labels), 4)
            calibrated = test if temperature == 1.0 else apply_temperature(test, temperature)
            rows[way]["temperature"].append(temperature)
            rows[way]["log_loss"].append(round(log_loss(labels, calibrated), 5))
            error = expected_calibration_error(labels, calibrated, 15)
            rows[way]["calibration_error"].append(round(error, 5))
    return rows


def _probabilities(name: str, photos: str, seed: int, folder: Path) -> tuple[Any, ...]:
    """Return probabilities and labels of validation and test, of a training in its own process."""
    file = folder / f"{name.replace(', ', '_').replace(' ', '_')}_{seed}.npz"
    if not file.exists():
        print(f"Training {name}, seed {seed}.", flush=True)
        command = [sys.executable, "-m", "benchmarks.calibration", "--train"]
        run_once(Side(name, [*command, name, photos, str(seed), str(file)]), timeout=3600)
    with np.load(file) as arrays:
        return tuple(arrays[key] for key in ("validation", _LABELS[0], "test", _LABELS[1]))


def _train(name: str, photos: str, seed: str, file: str) -> None:
    from cv_factory.config.loader import load_config
    from cv_factory.config.training import TrainingPipelineConfig
    from cv_factory.data.ingest import ingest
    from cv_factory.data.split import split_dataset
    from cv_factory.evaluation.evaluate_predictor import score
    from cv_factory.export.onnx_graph import export_predictor
    from cv_factory.training.train import train
    from cv_factory.transforms.fitted import fit_transform

    source, settings = TRAININGS[name]
    overrides = [*settings, f"split.seed={seed}", f"train.seed={seed}"]
    if name.startswith("photos"):
        overrides.append(f"data.path={Path(photos).resolve()}")
    config = load_config(TrainingPipelineConfig, ROOT / source, overrides=overrides)
    dataset = ingest(config.data)
    split = split_dataset(dataset, config.split)
    transform = fit_transform(dataset, split.train, config.transform)
    trained = train(dataset, split, transform, config.model, config.train)
    predictor = export_predictor(trained, transform, {}, dataset, split.validation)
    np.savez(
        file,
        validation=score(predictor, dataset, split.validation).probabilities,
        validation_labels=dataset.labels[split.validation],
        test=score(predictor, dataset, split.test).probabilities,
        test_labels=dataset.labels[split.test],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        _train(*sys.argv[2:])
    else:
        main()
