"""Runs the trials that it is told of, in a process of its own; ends with whoever started it.

One JSON object a line. In: ``{"number", "model", "train"}`` for a trial; ``{"prune": bool}`` in
answer to a report. Out: ``{"number", "step", "score"}`` for a report, and at last ``{"number",
"state", "fold_scores", "reason"}``. Networks report every epoch of the first fold (steps 1, 2, …);
every model reports the mean over the folds so far after each (steps from 10,001), so that a step
means the same in all trials.
Usage: python -m cv_factory.training.search.worker DIRECTORY METRIC
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
from cv_factory.training.search.folds import read_folds
from cv_factory.training.train import train

#: After the last possible epoch.
FIRST_FOLD_STEP = 10_001
_KEYS = {"accuracy": "validation_accuracy", "log_loss": "validation_loss"}

#: Takes step and score; says whether to stop.
Report = Callable[[int, float], bool]


class _PrunedError(Exception):
    """The trial is to be stopped."""


def main() -> None:
    """Run trials until standard input ends."""
    directory, metric = Path(sys.argv[1]), sys.argv[2]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    commands: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(sys.stdin, commands), daemon=True).start()
    trials = _Trials(directory, _KEYS[metric])
    while True:
        command = commands.get()
        number = command["number"]

        def report(step: int, score: float, number: int = number) -> bool:
            _say(answers, {"number": number, "step": step, "score": score})
            return bool(commands.get()["prune"])

        outcome = trials.run(command["model"], command["train"], report)
        _say(answers, {"number": number, **outcome})


class _Trials:
    """The images and folds, and what it takes to run a trial on them."""

    def __init__(self, directory: Path, key: str) -> None:
        self._dataset, self._folds = read_folds(directory)
        self._key = key

    def run(self, model: Any, settings: Any, report: Report) -> dict[str, Any]:
        """Train on each fold; a setting that does not work fails the trial, not the search."""
        scores: list[float] = []
        adapter: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)
        try:
            self._run(
                adapter.validate_python(model), TrainConfig.model_validate(settings), report, scores
            )
        except _PrunedError:
            return {"state": "pruned", "fold_scores": scores, "reason": ""}
        except CVFactoryError as error:
            return {"state": "failed", "fold_scores": scores, "reason": str(error)}
        return {"state": "complete", "fold_scores": scores, "reason": ""}

    def _run(
        self, model: ModelConfig, settings: TrainConfig, report: Report, scores: list[float]
    ) -> None:
        for fold, (split, transform) in enumerate(self._folds):

            def on_epoch(epoch: int, metrics: dict[str, float], fold: int = fold) -> None:
                if fold == 0 and is_network(model) and report(epoch, metrics[self._key]):
                    raise _PrunedError

            trained = train(self._dataset, split, transform, model, settings, on_epoch)
            # The last epoch's, not the best one's: that was chosen on these very images.
            scores.append(trained.history[-1][self._key])
            is_last = fold == len(self._folds) - 1
            if report(FIRST_FOLD_STEP + fold, sum(scores) / len(scores)) and not is_last:
                raise _PrunedError


def _listen(lines: IO[str], commands: "queue.Queue[dict[str, Any]]") -> None:
    """Pass commands on; at the end of the input, end this process at once, whatever it is doing."""
    for line in lines:
        commands.put(json.loads(line))
    os._exit(0)


def _say(answers: IO[str], content: dict[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
