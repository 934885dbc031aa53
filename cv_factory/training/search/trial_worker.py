"""Entry point (``-m``) of a worker of the search: runs trials that it reads from standard input.

One JSON object a line. Input: ``{"number", "model", "train"}`` for a trial; ``{"prune": bool}`` in
answer to a report. Output: ``{"number", "step", "score"}`` for a report, and at last ``{"number",
"state", "fold_scores", "reason"}``. Networks report every epoch of the first fold (steps 1, 2, …);
every model reports the mean over the finished folds after each (steps from 10,001), so that a step
means the same in all trials.
Usage: python -m cv_factory.training.search.trial_worker DIRECTORY METRIC
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from cv_factory.config.model import ModelConfig
from cv_factory.config.train import TrainConfig
from cv_factory.errors import CVFactoryError
from cv_factory.models import is_network
from cv_factory.progress import log_to_stderr
from cv_factory.training.search.folds import read_folds
from cv_factory.training.train import train

#: Larger than any epoch.
FIRST_FOLD_STEP = 10_001
_METRIC_KEYS = {"accuracy": "validation_accuracy", "log_loss": "validation_loss"}

#: Takes step and score; returns whether to prune the trial.
Report = Callable[[int, float], bool]


class _PrunedError(Exception):
    """The study pruned the trial."""


def main() -> None:
    """Run trials until standard input ends."""
    log_to_stderr()
    directory, metric = Path(sys.argv[1]), sys.argv[2]
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries may print to standard output
    commands: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read_commands, args=(sys.stdin, commands), daemon=True).start()
    trials = _TrialRunner(directory, _METRIC_KEYS[metric])
    while True:
        command = commands.get()
        number = command["number"]

        def report(step: int, score: float, number: int = number) -> bool:
            _write_message(output, {"number": number, "step": step, "score": score})
            return bool(commands.get()["prune"])

        outcome = trials.run(command["model"], command["train"], report)
        _write_message(output, {"number": number, **outcome})


class _TrialRunner:
    """Runs trials on the folds of a search."""

    def __init__(self, directory: Path, key: str) -> None:
        self._folds = read_folds(directory)
        self._key = key

    def run(self, model: Any, settings: Any, report: Report) -> dict[str, Any]:
        """Train on each fold; a ``CVFactoryError`` fails the trial, not the search."""
        scores: list[float] = []
        adapter: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)
        try:
            self._train_folds(
                adapter.validate_python(model), TrainConfig.model_validate(settings), report, scores
            )
        except _PrunedError:
            return {"state": "pruned", "fold_scores": scores, "reason": ""}
        except CVFactoryError as error:
            return {"state": "failed", "fold_scores": scores, "reason": str(error)}
        return {"state": "complete", "fold_scores": scores, "reason": ""}

    def _train_folds(
        self, model: ModelConfig, settings: TrainConfig, report: Report, scores: list[float]
    ) -> None:
        for fold, (split, transform) in enumerate(self._folds.parts):

            def on_epoch(epoch: int, metrics: dict[str, float], fold: int = fold) -> None:
                if fold == 0 and is_network(model) and report(epoch, metrics[self._key]):
                    raise _PrunedError

            dataset, features = self._folds.dataset, self._folds.features
            trained = train(dataset, split, transform, model, settings, on_epoch, features)
            # The last epoch's score, since the best epoch is selected on these images.
            scores.append(trained.history[-1][self._key])
            is_last = fold == len(self._folds.parts) - 1
            if report(FIRST_FOLD_STEP + fold, sum(scores) / len(scores)) and not is_last:
                raise _PrunedError


def _read_commands(lines: IO[str], commands: "queue.Queue[dict[str, Any]]") -> None:
    """Queue the commands; exit at once at the end of the input, when the search has ended."""
    for line in lines:
        commands.put(json.loads(line))
    os._exit(0)


def _write_message(output: IO[str], content: dict[str, Any]) -> None:
    output.write(json.dumps(content) + "\n")
    output.flush()


if __name__ == "__main__":
    main()
