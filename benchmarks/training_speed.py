"""Time until a predictor of Fashion-MNIST has 92.5 % test accuracy, against textbook scripts.

Ours is configs/training_fashion_mnist.yaml without ZenML (bare_training.py): reading, split, PCA,
training, export, and scoring of the exported predictor, imports included; the seed is the number of
the pair. The textbooks (textbook_training.py) are ResNet18 for 28x28 and our own network. Of
ResNet18, STEPS steps are timed (default 20; 0 for whole epochs), and an epoch follows from them; of
our network one whole epoch.

What a textbook takes is stated twice. *One epoch*: a lower bound. *EPOCHS epochs*: an assumption
that is named as such (default: as many as ours took; the textbooks have no schedule that would make
them faster), unless STEPS is 0: then the epochs to 92.5 % are counted, which takes hours.
Run: python -m benchmarks.training_speed [PAIRS [STEPS [EPOCHS]]]
"""

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import (
    Sample,
    Side,
    Spread,
    describe_machine,
    parse_arguments,
    run_once,
    save_result,
)

TARGET = 0.925
_CONFIG = "configs/training_fashion_mnist.yaml"
#: The textbooks, and how many times as fast ours is to be.
_TEXTBOOKS = {"resnet18": 8.0, "same_cnn": 3.0}


def main() -> int:
    """Run all sides PAIRS times, print a table, write the result as JSON; 1 if ours misses."""
    pairs, steps, configured_epochs = parse_arguments(pairs=1, steps=20, epochs=0)
    ours: list[Sample] = []
    books: dict[str, list[list[float]]] = {name: [] for name in _TEXTBOOKS}
    for seed in range(pairs):
        ours.append(run_once(_ours(seed), timeout=900))
        epochs = configured_epochs or ours[-1].values["epochs"]
        for name, samples in books.items():
            samples.append(_textbook_epochs(name, steps, epochs))
    accuracies = [sample.values["accuracy"] for sample in ours]
    console = Console()
    console.print(_table(ours, books, steps))
    console.print(f"Test accuracy of ours: {', '.join(f'{a:.2%}' for a in accuracies)}")
    console.print(f"Seconds of ours by part: {ours[-1].values['seconds']}")
    content = {
        "ours_seconds": [sample.seconds for sample in ours],
        "ours": [sample.values for sample in ours],
        "textbook_epochs": books,
        "measured_steps": steps,
        "machine": describe_machine(),
    }
    save_result("training_speed", content)
    return 0 if min(accuracies) >= TARGET else 1


def _ours(seed: int) -> Side:
    def collect(output: str) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(output.splitlines()[-1])
        return values

    command = [sys.executable, "benchmarks/bare_training.py", _CONFIG, f"train.seed={seed}"]
    return Side("cv-factory", command, collect=collect)


def _textbook_epochs(name: str, steps: int, epochs: int) -> list[float]:
    """Return the seconds of each epoch: measured up to the target, or one estimate repeated."""
    command = [sys.executable, "benchmarks/textbook_training.py", name]
    command += ["1" if steps else str(epochs)]
    if name == "resnet18" and steps:
        command += [str(steps)]
    side = Side(name, command, collect=json.loads)
    rows = run_once(side, timeout=900 if steps else 48 * 3600).values["epochs"]
    if steps:
        return [rows[0]["seconds"]] * epochs
    reached = next((i for i, row in enumerate(rows) if row["accuracy"] >= TARGET), len(rows) - 1)
    return [row["seconds"] for row in rows[: reached + 1]]


def _table(ours: list[Sample], books: dict[str, list[list[float]]], steps: int) -> Table:
    note = f"ResNet18: {steps} steps timed, epochs extrapolated" if steps else "whole epochs"
    table = Table(
        "Side", "Seconds", "Ratio", "Target", title=f"Fashion-MNIST, n={len(ours)}, {note}"
    )
    seconds = Spread.of([sample.seconds for sample in ours])
    epochs = ours[-1].values["epochs"]
    table.add_row(f"cv-factory, {epochs} epochs", _range(seconds), "1", "")
    for name, samples in books.items():
        for label, times in (
            ("one epoch (lower bound)", [epoch[0] for epoch in samples]),
            (f"{len(samples[-1])} epochs", [sum(epoch) for epoch in samples]),
        ):
            pairs = zip(times, ours, strict=True)
            ratio = Spread.of([seconds / sample.seconds for seconds, sample in pairs])
            target = f">= {_TEXTBOOKS[name]:g}"
            table.add_row(f"{name}, {label}", _range(Spread.of(times)), _range(ratio), target)
    return table


def _range(spread: Spread) -> str:
    return f"{spread.median:.1f} ({spread.min:.1f} to {spread.max:.1f})"


if __name__ == "__main__":
    sys.exit(main())
