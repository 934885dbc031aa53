"""Searches model families and settings with Optuna: asks for trials, has them run, picks the best.

Everything that decides stands in this process; workers only train. Each trial's sampler is seeded
by the trial's number, so that what is suggested depends on the finished trials alone: with one job,
a search that was interrupted ends as it would have without.
"""

import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from cv_factory.config.search import Choices, IntRange, Space, candidate
from cv_factory.cpu import available_cpus
from cv_factory.errors import TrainingError
from cv_factory.progress import say
from cv_factory.training.search.folds import write_folds
from cv_factory.training.search.job import SearchJob
from cv_factory.training.search.result import SearchResult, Trial
from cv_factory.training.search.worker_pool import Message, Worker, crew

_FAMILY = "family"
#: Trials that are drawn at random, and complete ones that the pruner waits for.
_RANDOM_TRIALS, _BEFORE_PRUNING = 10, 4
_ENOUGH_FOR_IMPORTANCE = 6

_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
#: Called with each trial that ended in this run.
TrialCallback = Callable[[Trial], None]


class Journal(Protocol):
    """Where finished trials are kept, so that an interrupted search goes on."""

    def read(self) -> list[Trial]:
        """Return the trials that ended."""
        ...

    def write(self, trial: Trial) -> None:
        """Keep a trial that ended; what was written survives a kill at any moment."""
        ...


def search(
    job: SearchJob, journal: Journal, on_trial: TrialCallback = lambda _trial: None
) -> SearchResult:
    """Try configurations on folds of the training images, and return the best one.

    Args:
        job: What is searched on what.
        journal: Holds the trials of an earlier, interrupted call; those are not run again.
        on_trial: Told of each trial that ended in this call.

    Raises:
        TrainingError: No trial worked, a worker died, or a setting does not fit the data.
    """
    study = _Study(job, journal)
    missing = study.missing
    if missing:
        with tempfile.TemporaryDirectory(prefix="cv-factory-search-") as folder:
            directory = Path(folder)
            write_folds(directory, job)
            size = min(job.config.jobs or available_cpus(), len(missing))
            with crew(directory, job.config.metric, size) as (workers, messages):
                for worker in workers:
                    study.start(worker)
                while study.running:
                    study.hear(messages.get(), on_trial)
    return study.result()


@dataclass
class _Running:
    """A trial that a worker is busy with."""

    number: int
    asked: optuna.Trial
    values: dict[str, Any]
    begun: float = field(default_factory=time.perf_counter)
    steps: dict[int, float] = field(default_factory=dict)


class _Study:
    """Optuna's study in memory, the trials that ended, and those that run."""

    def __init__(self, job: SearchJob, journal: Journal) -> None:
        config = job.config
        self._config, self._journal = config, journal
        self._model, self._train = job.model, job.train
        optuna.logging.set_verbosity(logging.WARNING)
        self._study = optuna.create_study(
            direction="maximize" if config.metric == "accuracy" else "minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_BEFORE_PRUNING)
            if config.pruning
            else optuna.pruners.NopPruner(),
        )
        self._families = list(config.families)
        self._ended: dict[int, Trial] = {}
        for trial in sorted(journal.read(), key=lambda t: t.number):
            if trial.number < config.trials:
                self._ended[trial.number] = trial
                self._study.add_trial(self._frozen(trial))
        self.running: dict[Worker, _Running] = {}
        self.missing = [n for n in range(config.trials) if n not in self._ended]

    def start(self, worker: Worker) -> None:
        """Give a worker the next trial, if there is one."""
        if not self.missing:
            return
        number = self.missing.pop(0)
        asked, values = self._ask(number)
        model, train = candidate(asked.params[_FAMILY], values, self._model, self._train)
        self.running[worker] = _Running(number, asked, values)
        dumped = {"model": model.model_dump(mode="json"), "train": train.model_dump(mode="json")}
        worker.tell({"number": number, **dumped})

    def hear(self, message: Message, on_trial: TrialCallback) -> None:
        """Act on what a worker said: answer a report, or keep a trial and start the next.

        Raises:
            TrainingError: The worker ended in the middle of a trial.
        """
        worker, content = message
        if content is None:
            if worker in self.running:
                raise worker.failure()
            return
        running = self.running[worker]
        if "step" in content:
            running.steps[content["step"]] = content["score"]
            running.asked.report(content["score"], content["step"])
            worker.tell({"prune": running.asked.should_prune()})
            return
        trial = self._trial(running, content)
        del self.running[worker]
        self._ended[trial.number] = trial
        state = _STATES[trial.state]
        value = trial.score if state == TrialState.COMPLETE else None
        self._study.tell(running.asked, value, state)
        self._journal.write(trial)
        on_trial(trial)
        self._show(trial)
        self.start(worker)

    def _show(self, trial: Trial) -> None:
        score = "" if trial.score is None else f"{self._config.metric} {trial.score:.4f}  "
        say(
            f"trial {len(self._ended)}/{self._config.trials}  {trial.family} {trial.state}  "
            f"{score}{trial.seconds:.1f} s{f'  {trial.reason}' if trial.reason else ''}"
        )

    def result(self) -> SearchResult:
        """Return all trials and the best one.

        Raises:
            TrainingError: None is complete.
        """
        trials = tuple(self._ended[number] for number in sorted(self._ended))
        complete = [t for t in trials if t.state == "complete" and t.score is not None]
        if not complete:
            reasons = "\n".join(sorted({t.reason for t in trials if t.reason}))
            raise TrainingError(f"None of {len(trials)} trials of the search worked:\n{reasons}")
        sign = 1 if self._config.metric == "accuracy" else -1
        best = max(complete, key=lambda t: (sign * float(t.score or 0.0), -t.number))
        model, train = candidate(best.family, best.values, self._model, self._train)
        importances = self._importances(complete)
        return SearchResult(self._config.metric, trials, best.number, model, train, importances)

    def _ask(self, number: int) -> tuple[optuna.Trial, dict[str, Any]]:
        """Draw the settings of a trial; the first trials are one of each family."""
        seed = (self._config.seed + number) % 2**32
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=max(_RANDOM_TRIALS, len(self._families))
            )
        if number < len(self._families):
            self._study.enqueue_trial({_FAMILY: self._families[number]})
        asked = self._study.ask()
        family = asked.suggest_categorical(_FAMILY, self._families)
        values = {}
        for key, distribution in self._distributions(family).items():
            drawn = asked._suggest(f"{family}.{key}", distribution)
            is_choice = isinstance(distribution, CategoricalDistribution)
            values[key] = json.loads(drawn) if is_choice else drawn
        return asked, values

    def _distributions(self, family: str) -> dict[str, BaseDistribution]:
        return {key: _distribution(spec) for key, spec in self._config.families[family].items()}

    def _frozen(self, trial: Trial) -> optuna.trial.FrozenTrial:
        """Return a trial of the journal as Optuna knows it."""
        distributions: dict[str, BaseDistribution] = {
            _FAMILY: CategoricalDistribution(self._families)
        }
        params: dict[str, Any] = {_FAMILY: trial.family}
        for key, distribution in self._distributions(trial.family).items():
            name, value = f"{trial.family}.{key}", trial.values[key]
            distributions[name] = distribution
            is_choice = isinstance(distribution, CategoricalDistribution)
            params[name] = json.dumps(value) if is_choice else value
        return optuna.trial.create_trial(
            state=_STATES[trial.state],
            value=trial.score if trial.state == "complete" else None,
            params=params,
            distributions=distributions,
            intermediate_values=dict(trial.steps),
        )

    @staticmethod
    def _trial(running: _Running, content: dict[str, Any]) -> Trial:
        scores = tuple(content["fold_scores"])
        score = sum(scores) / len(scores) if scores else None
        if content["state"] == "pruned" and score is None:
            score = running.steps[max(running.steps)]
        return Trial(
            number=running.number,
            family=running.asked.params[_FAMILY],
            values=running.values,
            state=content["state"],
            score=score,
            fold_scores=scores,
            steps=running.steps,
            seconds=time.perf_counter() - running.begun,
            reason=content["reason"],
        )

    def _importances(self, complete: list[Trial]) -> dict[str, dict[str, float]]:
        """Return how much of the score's variance each setting explains, by family and overall."""
        found = {"all": _share_of_families(complete)}
        for family in self._families:
            of_family = [trial for trial in complete if trial.family == family]
            names = [f"{family}.{key}" for key in self._config.families[family]]
            found[family] = self._importance(names, of_family)
        return {name: importance for name, importance in found.items() if importance}

    def _importance(self, names: list[str], trials: list[Trial]) -> dict[str, float]:
        """Run fANOVA. F. Hutter et al., An Efficient Approach for Assessing Importance, 2014."""
        if len(trials) < _ENOUGH_FOR_IMPORTANCE or len(names) < 2:
            return {}
        if len({trial.score for trial in trials}) == 1:
            return {}
        study = optuna.create_study(direction=self._study.direction)
        study.add_trials([self._frozen(trial) for trial in trials])
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self._config.seed)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
        return {name.partition(".")[2] or name: float(value) for name, value in found.items()}


def _share_of_families(trials: list[Trial]) -> dict[str, float]:
    """Return which share of the scores' variance lies between families, not within them."""
    families = np.array([trial.family for trial in trials])
    scores = np.array([trial.score for trial in trials], dtype=np.float64)
    if len(trials) < _ENOUGH_FOR_IMPORTANCE or len(set(families)) < 2 or not scores.var():
        return {}
    means = np.array([scores[families == family].mean() for family in families])
    return {_FAMILY: float(means.var() / scores.var())}


def _distribution(spec: Space) -> BaseDistribution:
    """Return a range or a list of choices as Optuna's; choices as JSON, since they may be lists."""
    match spec:
        case Choices():
            return CategoricalDistribution([json.dumps(choice) for choice in spec.choices])
        case IntRange():
            return IntDistribution(spec.low, spec.high, log=spec.log)
        case _:
            return FloatDistribution(spec.low, spec.high, log=spec.log)
