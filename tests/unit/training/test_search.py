"""The search: uses training images alone, and resumes after an interruption."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest

from cv_factory.config.search import SearchConfig
from cv_factory.config.training import TrainingPipelineConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.errors import TrainingError
from cv_factory.training.search.folds import write_folds
from cv_factory.training.search.result import SearchResult, Trial
from cv_factory.training.search.search_job import SearchJob
from cv_factory.training.search.study import Journal, _Study, search
from cv_factory.training.search.worker_pool import Worker
from tests.support.digits import load_digits
from tests.support.paths import ROOT

FOREST = {"random_forest": {"model.n_estimators": {"low": 1, "high": 12}}}
FAMILIES = {
    **FOREST,
    "logistic_regression": {"model.C": {"low": 1e-3, "high": 10.0, "log": True}},
}


class InMemoryJournal:
    """A journal that ends with the test."""

    def __init__(self, *trials: Trial) -> None:
        self.trials = list(trials)

    def read(self) -> list[Trial]:
        return list(self.trials)

    def write(self, trial: Trial) -> None:
        self.trials.append(Trial.from_json(trial.to_json()))


def configured(**settings: object) -> TrainingPipelineConfig:
    search_ = {"families": FAMILIES, "trials": 4, "jobs": 1, "folds": 2, **settings}
    pca = {"pca": {"n_components": 12}}
    return TrainingPipelineConfig.model_validate({"search": search_, "transform": pca})


def job(dataset: ImageDataset, split: Split, **settings: object) -> SearchJob:
    config = configured(**settings)
    assert config.search is not None
    sections = (config.transform, config.model, config.train, config.search)
    return SearchJob(dataset, split, *sections)


@pytest.fixture(scope="module")
def digits() -> tuple[ImageDataset, Split]:
    digits = load_digits(300)
    return digits.dataset, digits.split


def run(
    digits: tuple[ImageDataset, Split], journal: Journal | None = None, **settings: Any
) -> SearchResult:
    return search(job(*digits, **settings), journal or InMemoryJournal())


@pytest.fixture(scope="module")
def search_run(digits: tuple[ImageDataset, Split]) -> tuple[SearchResult, InMemoryJournal]:
    journal = InMemoryJournal()
    return run(digits, journal, pruning=False), journal


@pytest.mark.slow
def test_every_family_is_tried_and_the_best_trial_wins(
    search_run: tuple[SearchResult, InMemoryJournal],
) -> None:
    result, _ = search_run
    assert [t.number for t in result.trials] == [0, 1, 2, 3]
    assert {t.family for t in result.trials} == set(FAMILIES)
    assert all(t.state == "complete" and len(t.fold_scores) == 2 for t in result.trials)
    assert result.winner.score == max(t.score or 0 for t in result.trials)
    assert result.winner.score == pytest.approx(np.mean(result.winner.fold_scores))
    assert result.model.name == result.winner.family
    (key,) = result.winner.values
    assert getattr(result.model, key.removeprefix("model.")) == result.winner.values[key]


def test_a_result_is_loaded_as_saved(
    search_run: tuple[SearchResult, InMemoryJournal], tmp_path: Path
) -> None:
    result, _ = search_run
    result.save(tmp_path)
    loaded = SearchResult.load(tmp_path)
    assert loaded == result
    assert loaded.fingerprint == result.fingerprint


@pytest.mark.slow
def test_an_interrupted_search_ends_as_an_uninterrupted_one(
    digits: tuple[ImageDataset, Split], search_run: tuple[SearchResult, InMemoryJournal]
) -> None:
    uninterrupted, journal = search_run
    rest = InMemoryJournal(*journal.trials[:2])
    resumed = run(digits, rest, pruning=False)
    assert resumed.fingerprint == uninterrupted.fingerprint
    assert [t.number for t in rest.trials] == [0, 1, 2, 3]


@pytest.mark.slow
def test_only_the_training_images_are_used(
    digits: tuple[ImageDataset, Split], search_run: tuple[SearchResult, InMemoryJournal]
) -> None:
    dataset, split = digits
    images = np.array(dataset.images)
    images[split.validation] = images[split.test] = 0
    blinded = replace(dataset, images=images, backing=None)
    assert run((blinded, split), pruning=False).fingerprint == search_run[0].fingerprint


@pytest.mark.slow
def test_an_invalid_setting_fails_its_trial_with_a_reason(
    digits: tuple[ImageDataset, Split],
) -> None:
    families = {
        "small_cnn": {"train.batch_size": {"choices": [60_000]}},
        "logistic_regression": {},
    }
    result = run(digits, families=families, trials=2, validation="hold_out")
    states = {t.family: t.state for t in result.trials}
    assert states == {"small_cnn": "failed", "logistic_regression": "complete"}
    assert "train.batch_size is 60000" in result.trials[0].reason
    assert result.model.name == "logistic_regression"
    with pytest.raises(TrainingError, match=r"None of 1 trials .*\n.*batch_size is 60000"):
        run(
            digits,
            InMemoryJournal(result.trials[0]),
            families={"small_cnn": families["small_cnn"]},
            trials=1,
            validation="hold_out",
        )


class IdleWorker:
    """A worker that trains nothing."""

    def send(self, content: dict[str, Any]) -> None:
        pass


def simulate(search_job: SearchJob, journal: InMemoryJournal) -> SearchResult:
    """Run a search whose trials score 0.5 without training."""
    study, worker = _Study(search_job, journal), cast(Worker, IdleWorker())
    study.start_next_trial(worker)
    while study.active:
        outcome = {"state": "complete", "fold_scores": [0.5], "reason": ""}
        study.handle_message((worker, outcome), lambda _trial: None)
    return study.result()


def test_no_settings_are_tried_twice(digits: tuple[ImageDataset, Split]) -> None:
    families = {
        "logistic_regression": {},
        "random_forest": {"model.n_estimators": {"low": 1, "high": 4}},
    }
    finite = job(*digits, families=families, trials=9)
    journal = InMemoryJournal()
    result = simulate(finite, journal)
    assert sorted((t.family, *t.values.values()) for t in result.trials) == [
        ("logistic_regression",),
        *(("random_forest", n) for n in (1, 2, 3, 4)),
    ], "it ends with the last new settings"
    resumed = simulate(finite, InMemoryJournal(*journal.trials[:3]))
    assert resumed.fingerprint == result.fingerprint


def test_more_folds_than_images_of_a_class_are_refused(
    digits: tuple[ImageDataset, Split],
) -> None:
    dataset, split = digits
    first = [np.flatnonzero(dataset.labels[split.train] == k)[:4] for k in range(10)]
    few = replace(split, train=split.train[np.sort(np.concatenate(first))])
    with pytest.raises(TrainingError, match=r"search\.folds is 5, but class '\d' has only 4"):
        run((dataset, few), folds=5)


def test_other_settings_have_another_journal(digits: tuple[ImageDataset, Split]) -> None:
    def key(**settings: Any) -> str:
        return job(*digits, **settings).key

    assert key() == key(trials=9, jobs=2), "a search can be lengthened"
    assert len({key(), key(folds=3), key(seed=1), key(families=FOREST)}) == 4


@pytest.mark.parametrize(
    ("families", "message"),
    [
        ({"xgbost": {}}, "families.xgbost: there is no such model. Did you mean 'xgboost'?"),
        ({"xgboost": {"model.maxdepth": {"low": 2, "high": 4}}}, "Did you mean 'model.max_depth'"),
        (
            {"xgboost": {"max_depth": {"low": 2, "high": 4}}},
            "xgboost.max_depth: there is no such setting. Did you mean 'model.max_depth'",
        ),
        ({"xgboost": {"model.max_depth": {"low": 2, "high": 64}}}, "at most 32 (got 64)"),
        ({"xgboost": {"model.max_depth": {"low": 2.0, "high": 4.0}}}, "whole number (got 2.0)"),
        ({"xgboost": {"model.max_depth": {"low": 4, "high": 2}}}, "low is 4"),
        ({"mlp": {"model.alpha": {"low": 0.0, "high": 1.0, "log": True}}}, "begins above 0"),
        ({"mlp": {"model.hidden": {"choices": [[64], [2]]}}}, "must be at least 4"),
        ({"torchvision": {}}, "architecture: must be given"),
    ],
)
def test_an_invalid_space_is_named(families: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        configured(families=families)


def test_without_the_section_there_is_no_search() -> None:
    assert TrainingPipelineConfig().search is None
    assert SearchConfig.model_validate({"families": {"mlp": {}}}).trials == 20


@pytest.mark.slow
def test_workers_end_with_a_killed_search(
    digits: tuple[ImageDataset, Split], tmp_path: Path
) -> None:
    write_folds(tmp_path / "folds", job(*digits))
    command = [sys.executable, "-c", _POOL_WITH_BUSY_WORKERS, str(tmp_path / "folds")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "busy\n"
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) == 2
        os.kill(process.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


#: Each worker trains a forest on two folds; "busy" is printed when one begins its second.
_POOL_WITH_BUSY_WORKERS = """
import sys, time
from pathlib import Path
from typing import Any
from cv_factory.training.search.worker_pool import worker_pool

with worker_pool(Path(sys.argv[1]), "accuracy", 2) as (workers, messages):
    for worker in workers:
        model = {"name": "random_forest", "n_estimators": 50}
        worker.send({"number": 0, "model": model, "train": {}})
    worker, report = messages.get()
    worker.send({"prune": False})
    print("busy" if "step" in report else report, flush=True)
    time.sleep(60)
"""
