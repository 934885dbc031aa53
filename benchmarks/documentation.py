"""Writes the figures of the pages from the stored results, so that none is quoted without one.

A page holds ``<!-- figures: NAME -->`` and ``<!-- end -->``; what stands between them comes from
``benchmarks/results``. A test fails where a page and the results differ.

    python -m benchmarks.documentation
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks import training_speed as fashion_mnist
from benchmarks.harness import RESULTS, ROOT, Spread

_MARKED = re.compile(r"(<!-- figures: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
Figures = Any


def main() -> int:
    """Rewrite the pages whose figures differ from the results; name them."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (filled := fill(text)) != text:
            page.write_text(filled, encoding="utf-8")
            sys.stdout.write(f"{page.relative_to(ROOT)}\n")
    return 0


def fill(text: str) -> str:
    """Return a page with the figures that the results hold.

    Raises:
        KeyError: A marker names figures that are not known here.
        FileNotFoundError: A result is not stored.
    """
    return _MARKED.sub(lambda match: match[1] + render(match[2]) + match[4], text)


def render(name: str) -> str:
    """Return the Markdown of some figures, with the result, machine and date they come from."""
    function, file = FIGURES[name]
    path = RESULTS / file
    result = json.loads(path.read_text(encoding="utf-8"))
    machine = result["machine"]
    instructions = f" with {machine['instructions']}" if machine.get("instructions") else ""
    source = (
        f"{machine['processor']}{instructions}, {machine['cpus']} CPUs, "
        f"load {machine['load_before']:.1f}, "
        f"{machine['when'][:10]}: [`{path.relative_to(ROOT)}`](../{path.relative_to(ROOT)})"
    )
    return f"{function(result)}\n\n{source}\n"


def models(result: Figures) -> str:
    """Every model on the digits."""
    rows = [
        (f"`{name}`", f"{row['accuracy']:.2%}", f"{row['seconds']:.1f}", f"{row['kilobytes']:,.0f}")
        for name, row in result["models"].items()
    ]
    return _table(("model", "test accuracy", "seconds to train", "predictor kB"), rows)


_CALIBRATORS = {
    "uncalibrated": "uncalibrated",
    "likelihood alone": "likelihood alone",
    "normal prior of log T, std 0.5": "normal prior",
    "0.5 assumed errors": "half an error",
    "0.5, checked on folds (shipped)": "shipped: with folds",
}


def calibration(result: Figures) -> str:
    """Mean log loss and calibration error, by training and calibrator."""
    losses: dict[str, list[float]] = {name: [] for name in _CALIBRATORS}
    errors: dict[str, list[float]] = {name: [] for name in _CALIBRATORS}
    rows = []
    for training, by_calibrator in result["results"].items():
        cells = [training]
        for name in _CALIBRATORS:
            figures = by_calibrator[name]
            loss, error = np.mean(figures["log_loss"]), np.mean(figures["calibration_error"])
            cells.append(f"{loss:.3f} / {error:.1%}")
            losses[name] += _differences(figures, by_calibrator["uncalibrated"], "log_loss")
            errors[name] += _differences(
                figures, by_calibrator["uncalibrated"], "calibration_error"
            )
        rows.append(cells)
    worst = [f"{max(losses[n]):+.3f} / {max(errors[n]):+.1%}" for n in list(_CALIBRATORS)[1:]]
    rows.append(["worst seed against uncalibrated", "", *worst])
    return _table(("training", *_CALIBRATORS.values()), rows)


def _differences(figures: Figures, reference: Figures, key: str) -> list[float]:
    return [a - b for a, b in zip(figures[key], reference[key], strict=True)]


def unfamiliar(result: Figures) -> str:
    """AUROC and share called unfamiliar, by the model's images and the images it never saw."""
    rows, shares = [], []
    for data in ("digits", "photographs", "CIFAR-10"):
        runs = result[data]
        own = [run["test images called unfamiliar"] for run in runs]
        shares.append(f"{_share(own)} of the test images of {data}")
        for name in [key for key, value in runs[0].items() if isinstance(value, dict)]:
            aurocs = {key: [run[name]["auroc"][key] for run in runs] for key in _SPACES}
            best = max(("pixels", "spectrum", "network"), key=lambda s: np.median(aurocs[s]))
            row = [data, name, _spread(aurocs["score"])]
            row.append(_share([run[name]["called unfamiliar"] for run in runs]))
            row += [f"{best} {np.median(aurocs[best]):.3f}"]
            rows.append([*row, f"{np.median(aurocs['1 - largest probability']):.3f}"])
    columns = "model of", "unfamiliar images", "AUROC", "called unfamiliar"
    table = _table((*columns, "best space alone", "1 - largest probability"), rows)
    return f"{table}\n\nCalled unfamiliar: {'; '.join(shares)}. {_unfamiliar_cost(result)}"


_SPACES = ("score", "pixels", "spectrum", "network", "1 - largest probability")


def _unfamiliar_cost(result: Figures) -> str:
    latency = result["latency"]
    costs = [
        f"{np.median(latency[key][0]):.0f} to {np.median(latency[key][1]):.0f} µs for {key}"
        for key in ("batch 1", "batch 32")
    ]
    before, after = (size / 1e3 for size in latency["graph bytes"])
    n = len(latency["batch 1"][0])
    return (
        f"The score takes a run of the digits' graph from {' and from '.join(costs)} (n={n}), and "
        f"its size from {before:.0f} to {after:.0f} kB."
    )


def photos(result: Figures) -> str:
    """Accuracy and seconds of each side, by the number of photos of a class."""
    rows = []
    for per_class, runs in sorted(result["sizes"].items(), key=lambda item: -int(item[0])):
        for side in dict.fromkeys(name for run in runs for name in run):
            samples = [run[side] for run in runs if side in run]
            accuracy = _share([sample["accuracy"] for sample in samples])
            seconds = Spread.of([sample["seconds"] for sample in samples])
            spread = f" ({seconds.min:.0f}-{seconds.max:.0f})" if seconds.n > 1 else ""
            duration = f"{seconds.median:.0f}{spread}"
            rows.append((per_class, _PHOTO_SIDES[side], accuracy, duration, str(seconds.n)))
    return _table(("photos a class", "", "test accuracy", "seconds", "n"), rows)


_PHOTO_SIDES = {
    "first run": "the command, nothing cached",
    "another head": "the same with `model.name=mlp`",
    "PyTorch": "a script that fine-tunes the backbone",
    "fastai": "fastai, `fine_tune`",
}


def pca(result: Figures) -> str:
    """Ours against scikit-learn's default solver."""
    ours, other = (result["solvers"][name] for name in ("ours", "sklearn default"))
    pairs = zip(ours, other, strict=True)
    ratio = Spread.of([b["seconds"] / a["seconds"] for a, b in pairs])
    seconds, megabytes = (
        [Spread.of([sample[key] for sample in side]).median for side in (ours, other)]
        for key in ("seconds", "extra_MB")
    )
    return (
        f"60,000 images of 28x28, 64 components: {seconds[0]:.2f} s, scikit-learn's default "
        f"{seconds[1]:.2f} s ({ratio.median:.1f} times as long, {ratio.min:.1f} to "
        f"{ratio.max:.1f}, n={ratio.n}); {megabytes[0]:.0f} MB more memory, scikit-learn's default "
        f"{megabytes[1]:.0f}."
    )


_TITLES = {"small_cnn": "small CNN, 28x28 PNG", "resnet18": "ResNet18, 64x64 PNG"}
_SERVERS = {
    "cv_factory": "**this service**",
    "mlflow_torch": "MLflow, torch",
    "mlflow_onnx": "MLflow, ONNX Runtime",
    "fastapi": "FastAPI, ONNX Runtime",
    "bentoml": "BentoML's API route",
    "mlserver": "MLServer, ONNX Runtime",
}


def serving_resnet18(result: Figures) -> str:
    """Servers of ResNet18."""
    return _servers(_TITLES["resnet18"], result["resnet18"])


def serving_small_cnn(result: Figures) -> str:
    """Servers of the small CNN."""
    return _servers(_TITLES["small_cnn"], result["small_cnn"])


def _servers(title: str, measured: Figures) -> str:
    bare = measured["bare_images_per_second"]
    ours, *others = [key for key in measured if key != "bare_images_per_second"]
    rates = _rates(measured[ours])
    rows = []
    for name in (ours, *others):
        runs = measured[name]
        cells = []
        for n in ("1", "8", "32"):
            samples = [run["by_connections"][n] for run in runs]
            rate, p50, p99 = (np.median([s[k] for s in samples]) for k in ("rate", "p50", "p99"))
            cells.append(f"{rate:.0f}, {p50:.1f}/{p99:.1f}")
        start = np.median([run["cold_start_seconds"] for run in runs])
        cells += [f"{np.median([run['rss_mb'] for run in runs]):.0f}", f"{start:.1f}"]
        cells.append("" if name == ours else _times(rates, _rates(runs)))
        rows.append([_SERVERS.get(name, name), *cells])
    rows.append(
        ["bare loop, batches of 8", "", "", f"{np.median(bare):.0f}", "", "", _times(rates, bare)]
    )
    columns = (title, "1 connection", "8", "32", "MB", "start s", "ours, at 32")
    text = f"Requests/s and p50/p99 in ms, medians of {len(bare)} rounds."
    return f"{text}\n\n{_table(columns, rows)}"


def _rates(runs: Sequence[Figures]) -> list[float]:
    return [run["by_connections"]["32"]["rate"] for run in runs]


def _times(ours: Sequence[float], others: Sequence[float]) -> str:
    ratio = Spread.of([a / b for a, b in zip(ours, others, strict=True)])
    return f"{ratio.median:.2f} x ({ratio.min:.2f} to {ratio.max:.2f})"


def serving_overload(result: Figures) -> str:
    """Ten times the connections, and a killed worker."""
    parts = []
    for connections, runs in result["by_connections"].items():
        answered, refused, p50, p99, late = (
            np.median([run[key] for run in runs])
            for key in (
                "answered_per_second", "refused_per_second", "p50_ms", "p99_ms", "late_per_second",
            )
        )  # fmt: skip
        parts.append(
            f"- {connections} connections: {answered:.0f}/s answered, p50/p99 of accepted ones "
            f"{p50:.0f}/{p99:.0f} ms, {refused:.0f}/s rejected, {late:.0f}/s late (n={len(runs)})."
        )
    recovery = Spread.of(result["recovery_seconds"])
    parts.append(
        f"- A killed worker: back after {recovery.median:.1f} s (at most {recovery.max:.1f}, "
        f"n={recovery.n}); at most {max(result['lost_requests'])} requests in flight were lost."
    )
    return "\n".join(parts)


def serving_camera(result: Figures) -> str:
    """Cameras over WebSocket and over requests."""
    rows = []
    for model in ("small_cnn", "resnet18"):
        for n, requests in result[model]["/predict"].items():
            sockets = result[model]["/ws"][n]
            cells = [
                "/".join(f"{np.median([run[key] for run in runs]):.1f}" for key in _PERCENTILES)
                for runs in (requests, sockets)
            ]
            p99s = ([run["p99_ms"] for run in runs] for runs in (sockets, requests))
            rows.append([_MODELS[model], n, *cells, _times(*p99s)])
    columns = ("p50/p99 in ms", "cameras", "`/predict`", "`/ws`", "p99 of `/ws` by `/predict`")
    return _table(columns, rows)


_PERCENTILES = ("p50_ms", "p99_ms")
_MODELS = {"small_cnn": "small CNN", "resnet18": "ResNet18"}


def serving_tensors(result: Figures) -> str:
    """Batches of 8 images in every form of a request."""
    rows = [
        [name, *(f"{_median(result[model]['figures'][name], 'images'):,.0f}" for model in _TITLES)]
        for name in result["small_cnn"]["figures"]
    ]
    rounds = len(next(iter(result["small_cnn"]["figures"].values())))
    text = f"Images/s over 8 connections, medians of {rounds} rounds."
    return f"{text}\n\n{_table(('batches of 8', *_TITLES.values()), rows)}"


def _median(samples: Sequence[Figures], key: str) -> float:
    return float(np.median([sample[key] for sample in samples]))


def training_speed(result: Figures) -> str:
    """Seconds to the exported predictor of Fashion-MNIST, against textbook scripts."""
    ours = Spread.of(result["ours_seconds"])
    accuracies = [values["accuracy"] for values in result["ours"]]
    target = fashion_mnist.TARGET
    n_reached = sum(accuracy >= target for accuracy in accuracies)
    ratios = [
        np.median(np.sum(result["textbook_epochs"][name], axis=1) / result["ours_seconds"])
        for name in ("resnet18", "same_cnn")
    ]
    return (
        f"{ours.median:.0f} s (n={ours.n}, at most {ours.max:.0f}) from the start of Python to the "
        f"scored predictor; {n_reached} of {ours.n} reach {target:.1%} on the test split, the "
        f"lowest has {min(accuracies):.2%}. As many epochs of the "
        f"textbook scripts, extrapolated, take {ratios[0]:.0f} (ResNet18) and {ratios[1]:.1f} "
        "times as long (the same network)."
    )


def heads(result: Figures) -> str:
    """Seconds that heads take to fit on features, and how equal the logistic regressions are."""
    rows = [
        [name, f"{s['median']:.2f} ({s['min']:.2f}-{s['max']:.2f}, n={s['n']})"]
        for name, s in result["seconds"].items()
    ]
    return (
        f"{_table(['3,000 images, 1,280 features, 10 classes', 'seconds'], rows)}\n\n"
        "Largest difference in probability from scikit-learn's exact solver: "
        f"{max(result['difference'].values()):.1e}."
    )


def training_epochs(result: Figures) -> str:
    """Seconds of an epoch of ``small_cnn``, quiet and beside a busy process."""
    names = {
        "ours": "`run.py`, `precision: auto`",
        "ours, fp32": "`run.py`, fp32",
        "plain": "plain loop",
        "plain, sleeping threads": "plain loop, `GOMP_SPINCOUNT=1000`",
    }
    seconds = [result[condition]["epoch_seconds"] for condition in ("quiet", "beside a loop")]
    rows = [[text, *(_spread(values[name]) for values in seconds)] for name, text in names.items()]
    return _table(["s an epoch", "quiet", "beside a busy process"], rows)


FIGURES: dict[str, tuple[Callable[[Figures], str], str]] = {
    "models": (models, "models_on_digits.json"),
    "calibration": (calibration, "calibration.json"),
    "unfamiliar": (unfamiliar, "unfamiliar.json"),
    "pca": (pca, "pca_784.json"),
    "photos": (photos, "photos.json"),
    "serving_resnet18": (serving_resnet18, "serving.json"),
    "serving_small_cnn": (serving_small_cnn, "serving.json"),
    "serving_overload": (serving_overload, "serving_overload.json"),
    "serving_tensors": (serving_tensors, "serving_tensors.json"),
    "serving_camera": (serving_camera, "serving_camera.json"),
    "heads": (heads, "heads.json"),
    "training_epochs": (training_epochs, "training_epochs.json"),
    "training_speed": (training_speed, "training_speed.json"),
}


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _spread(values: Sequence[float]) -> str:
    low, high, median = f"{min(values):.3f}", f"{max(values):.3f}", f"{np.median(values):.3f}"
    return median if low == high else f"{median} ({low}-{high})"


def _share(values: Sequence[float]) -> str:
    low, high = f"{min(values):.1%}", f"{max(values):.1%}"
    return low if low == high else f"{np.median(values):.1%} ({low}-{high})"


if __name__ == "__main__":
    sys.exit(main())
