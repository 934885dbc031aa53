"""Hyperparameter search with Optuna: samples trials, distributes them to workers, selects the best.

This process makes all decisions; workers only train. Each trial's sampler is seeded by the trial's
number, so that its suggestions depend on the finished trials alone: with one job, an interrupted
search gives the same result as an uninterrupted one.
"""

import json
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
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

from cv_factory.config.search import Choices, IntRange, Space, build_trial_config
from cv_factory.cpu import available_cpus
from cv_factory.errors import TrainingError
from cv_factory.training.search.folds import write_folds
from cv_factory.training.search.result import SearchResult, Trial
from cv_factory.training.search.search_job import SearchJob
from cv_factory.training.search.worker_pool import Message, Worker, worker_pool

_log = logging.getLogger(__name__)

_FAMILY = "family"
#: Trials that are sampled at random before TPE.
_STARTUP_TRIALS = 10
#: Complete trials before the median pruner starts.
_TRIALS_BEFORE_PRUNING = 4
_MIN_TRIALS_FOR_IMPORTANCE = 6
#: Samples of one trial, until one is new; by chance, all but a few values of a setting are found.
_MAX_ATTEMPTS = 200

_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
#: Called with each trial that finished in this run.
TrialCallback = Callable[[Trial], None]


class Journal(Protocol):
    """Storage of finished trials, from which an interrupted search resumes."""

    def read(self) -> list[Trial]:
        """Return the finished trials."""
        ...

    def write(self, trial: Trial) -> None:
        """Store a finished trial atomically."""
        ...


def search(
    job: SearchJob, journal: Journal, on_trial: TrialCallback = lambda _trial: None
) -> SearchResult:
    """Run the trials that the journal lacks on folds of the training images; return all trials.

    Args:
        job: Data, base settings and search space.
        journal: Of finished trials; those of an interrupted call are not run again.
        on_trial: Called with each trial that finished in this call.

    Raises:
        TrainingError: No trial completed, a worker died, or a setting does not fit the data.
    """
    study = _Study(job, journal)
    if study.pending:
        with tempfile.TemporaryDirectory(prefix="cv-factory-search-") as folder:
            directory = Path(folder)
            write_folds(directory, job)
            size = min(job.config.jobs or available_cpus(), len(study.pending))
            _log.info(f"Running {len(study.pending)} trials in {size} processes.")
            with worker_pool(directory, job.config.metric, size) as (workers, messages):
                for worker in workers:
                    study.start_next_trial(worker)
                while study.active:
                    study.handle_message(messages.get(), on_trial)
    return study.result()


@dataclass
class _ActiveTrial:
    """A trial that a worker is running."""

    number: int
    optuna_trial: optuna.Trial
    values: dict[str, Any]
    start: float = field(default_factory=time.perf_counter)
    steps: dict[int, float] = field(default_factory=dict)


class _Study:
    """Optuna's in-memory study with the finished, active and pending trials."""

    def __init__(self, job: SearchJob, journal: Journal) -> None:
        config = job.config
        self._config, self._journal = config, journal
        self._model, self._train = job.model, job.train
        optuna.logging.set_verbosity(logging.WARNING)
        self._study = optuna.create_study(
            direction="maximize" if config.metric == "accuracy" else "minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_TRIALS_BEFORE_PRUNING)
            if config.pruning
            else optuna.pruners.NopPruner(),
        )
        self._families = list(config.families)
        self._finished: dict[int, Trial] = {}
        for trial in sorted(journal.read(), key=lambda t: t.number):
            if trial.number < config.trials:
                self._finished[trial.number] = trial
                self._study.add_trial(self._to_frozen_trial(trial))
        self.active: dict[Worker, _ActiveTrial] = {}
        self._tried = {_settings_key(t.family, t.values) for t in self._finished.values()}
        self.pending = [n for n in range(config.trials) if n not in self._finished]

    def start_next_trial(self, worker: Worker) -> None:
        """Send the next pending trial to a worker, if there is one and settings are left to try."""
        if not self.pending:
            return
        number = self.pending.pop(0)
        sample = self._sample_new_trial(number)
        if sample is None:
            _log.info("All settings of the search were tried: it ends before trial %d.", number + 1)
            self.pending.clear()
            return
        optuna_trial, values = sample
        model, train = build_trial_config(
            optuna_trial.params[_FAMILY], values, self._model, self._train
        )
        self.active[worker] = _ActiveTrial(number, optuna_trial, values)
        dumped = {"model": model.model_dump(mode="json"), "train": train.model_dump(mode="json")}
        worker.send({"number": number, **dumped})

    def handle_message(self, message: Message, on_trial: TrialCallback) -> None:
        """Handle a worker's report (answer whether to prune) or result (store it, start the next).

        Raises:
            TrainingError: The worker ended during a trial.
        """
        worker, content = message
        if content is None:
            if worker in self.active:
                raise worker.exit_error()
            return
        active_trial = self.active[worker]
        if "step" in content:
            active_trial.steps[content["step"]] = content["score"]
            active_trial.optuna_trial.report(content["score"], content["step"])
            worker.send({"prune": active_trial.optuna_trial.should_prune()})
            return
        trial = self._build_trial(active_trial, content)
        del self.active[worker]
        self._finished[trial.number] = trial
        state = _STATES[trial.state]
        value = trial.score if state == TrialState.COMPLETE else None
        self._study.tell(active_trial.optuna_trial, value, state)
        self._journal.write(trial)
        on_trial(trial)
        self._report_trial(trial)
        self.start_next_trial(worker)

    def _report_trial(self, trial: Trial) -> None:
        score = "" if trial.score is None else f"{self._config.metric} {trial.score:.4f}  "
        _log.info(
            f"trial {trial.number + 1}/{self._config.trials}  {trial.family} {trial.state}  "
            f"{score}{trial.seconds:.1f} s{f'  {trial.reason}' if trial.reason else ''}"
        )

    def result(self) -> SearchResult:
        """Return all trials and the best one.

        Raises:
            TrainingError: No trial is complete.
        """
        trials = tuple(self._finished[number] for number in sorted(self._finished))
        complete = [t for t in trials if t.state == "complete" and t.score is not None]
        if not complete:
            reasons = "\n".join(sorted({t.reason for t in trials if t.reason}))
            raise TrainingError(f"None of {len(trials)} trials of the search completed:\n{reasons}")
        sign = 1 if self._config.metric == "accuracy" else -1
        best = max(complete, key=lambda t: (sign * float(t.score or 0.0), -t.number))
        model, train = build_trial_config(best.family, best.values, self._model, self._train)
        importances = self._importances(complete)
        return SearchResult(self._config.metric, trials, best.number, model, train, importances)

    def _sample_new_trial(self, number: int) -> tuple[optuna.Trial, dict[str, Any]] | None:
        """Sample settings that were not tried yet; None where there are none left.

        The first trials are one of each family. TPE samples the others and, where it comes back to
        settings that were tried, chance does.
        """
        families = [family for family in self._families if not self._is_exhausted(family)]
        random = np.random.default_rng((self._config.seed, number))
        for attempt in range(_MAX_ATTEMPTS if families else 0):
            if number < len(self._families):
                self._study.enqueue_trial({_FAMILY: self._families[number]})
            elif attempt:
                self._study.enqueue_trial({_FAMILY: families[random.integers(len(families))]})
            optuna_trial, values = self._sample_trial((self._config.seed + number) % 2**32, attempt)
            key = _settings_key(optuna_trial.params[_FAMILY], values)
            if key not in self._tried:
                self._tried.add(key)
                return optuna_trial, values
            self._study.tell(optuna_trial, state=TrialState.FAIL)
        return None

    def _is_exhausted(self, family: str) -> bool:
        """Whether all settings of a family were tried; never where real numbers vary."""
        n_tried = sum(key.startswith(_settings_key(family)) for key in self._tried)
        return n_tried >= math.prod(map(_count_values, self._config.families[family].values()))

    def _sample_trial(self, seed: int, attempt: int) -> tuple[optuna.Trial, dict[str, Any]]:
        """Sample the settings of a trial: by TPE, in further attempts at random."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = (
                optuna.samplers.RandomSampler(seed=(seed + attempt) % 2**32)
                if attempt
                else optuna.samplers.TPESampler(
                    seed=seed, n_startup_trials=max(_STARTUP_TRIALS, len(self._families))
                )
            )
        optuna_trial = self._study.ask()
        family = optuna_trial.suggest_categorical(_FAMILY, self._families)
        values = {}
        for key, distribution in self._distributions(family).items():
            sample = optuna_trial._suggest(f"{family}.{key}", distribution)
            is_choice = isinstance(distribution, CategoricalDistribution)
            values[key] = json.loads(sample) if is_choice else sample
        return optuna_trial, values

    def _distributions(self, family: str) -> dict[str, BaseDistribution]:
        return {key: _to_distribution(spec) for key, spec in self._config.families[family].items()}

    def _to_frozen_trial(self, trial: Trial) -> optuna.trial.FrozenTrial:
        """Convert a finished trial to Optuna's."""
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
    def _build_trial(active_trial: _ActiveTrial, content: dict[str, Any]) -> Trial:
        scores = tuple(content["fold_scores"])
        score = sum(scores) / len(scores) if scores else None
        if content["state"] == "pruned" and score is None:
            score = active_trial.steps[max(active_trial.steps)]
        return Trial(
            number=active_trial.number,
            family=active_trial.optuna_trial.params[_FAMILY],
            values=active_trial.values,
            state=content["state"],
            score=score,
            fold_scores=scores,
            steps=active_trial.steps,
            seconds=time.perf_counter() - active_trial.start,
            reason=content["reason"],
        )

    def _importances(self, complete: list[Trial]) -> dict[str, dict[str, float]]:
        """Return how much of the score's variance each setting explains, by family and overall."""
        importances = {"all": _family_variance_ratio(complete)}
        for family in self._families:
            trials = [trial for trial in complete if trial.family == family]
            names = [f"{family}.{key}" for key in self._config.families[family]]
            importances[family] = self._importance(names, trials)
        return {name: importance for name, importance in importances.items() if importance}

    def _importance(self, names: list[str], trials: list[Trial]) -> dict[str, float]:
        """Run fANOVA. F. Hutter et al., An Efficient Approach for Assessing Importance, 2014."""
        if len(trials) < _MIN_TRIALS_FOR_IMPORTANCE or len(names) < 2:
            return {}
        if len({trial.score for trial in trials}) == 1:
            return {}
        study = optuna.create_study(direction=self._study.direction)
        study.add_trials([self._to_frozen_trial(trial) for trial in trials])
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self._config.seed)
        scores = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
        return {name.partition(".")[2] or name: float(value) for name, value in scores.items()}


def _settings_key(family: str, values: Mapping[str, Any] | None = None) -> str:
    """Return a text that settings of a trial share with equal ones alone; of a family its start."""
    return f"{family} " + ("" if values is None else json.dumps(values, sort_keys=True))


def _count_values(spec: Space) -> float:
    """Return how many values a setting may take; infinity for real numbers."""
    match spec:
        case Choices():
            return len({json.dumps(choice) for choice in spec.choices})
        case IntRange():
            return spec.high - spec.low + 1
        case _:
            return math.inf


def _family_variance_ratio(trials: list[Trial]) -> dict[str, float]:
    """Return the fraction of the scores' variance that lies between families."""
    families = np.array([trial.family for trial in trials])
    scores = np.array([trial.score for trial in trials], dtype=np.float64)
    if len(trials) < _MIN_TRIALS_FOR_IMPORTANCE or len(set(families)) < 2 or not scores.var():
        return {}
    means = np.array([scores[families == family].mean() for family in families])
    return {_FAMILY: float(means.var() / scores.var())}


def _to_distribution(spec: Space) -> BaseDistribution:
    """Convert a range or choices to Optuna's; choices become JSON, since they may be lists."""
    match spec:
        case Choices():
            return CategoricalDistribution([json.dumps(choice) for choice in spec.choices])
        case IntRange():
            return IntDistribution(spec.low, spec.high, log=spec.log)
        case _:
            return FloatDistribution(spec.low, spec.high, log=spec.log)
