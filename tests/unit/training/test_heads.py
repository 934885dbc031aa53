"""Classical models on a backbone's features: mirror images, class weights, and the search."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cv_factory.config.train import TrainConfig
from cv_factory.config.training import TrainingPipelineConfig
from cv_factory.errors import TrainingError
from cv_factory.export.onnx_graph import export_predictor
from cv_factory.models import _penalty_choice
from cv_factory.models.logistic_regression import LogisticRegressionConfig
from cv_factory.training.search.folds import read_folds, write_folds
from cv_factory.training.search.search_job import SearchJob
from cv_factory.training.search.trial_worker import _TrialRunner
from cv_factory.training.train import train
from cv_factory.training.trained_model import TrainedModel
from tests.support.backbones import HeadOnFeatures, fit_head

OPEN = LogisticRegressionConfig()
STRONG = LogisticRegressionConfig(C=0.01)


@pytest.fixture(scope="module")
def digits() -> HeadOnFeatures:
    return fit_head()


@pytest.fixture(autouse=True)
def _coarse_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_penalty_choice, "C_GRID", (0.01, 0.1, 1.0))


def train_head(
    digits: HeadOnFeatures, model: LogisticRegressionConfig = STRONG, **settings: object
) -> TrainedModel:
    config = TrainConfig.model_validate(settings)
    return train(
        digits.dataset, digits.split, digits.transform, model, config, features=digits.features
    )


def with_mirrored(digits: HeadOnFeatures, mirrored: np.ndarray) -> HeadOnFeatures:
    return replace(digits, features=replace(digits.features, mirrored=mirrored))


def test_a_head_is_fitted_on_the_features_and_exports(digits: HeadOnFeatures) -> None:
    trained = train_head(digits, OPEN)
    assert isinstance(trained.config, LogisticRegressionConfig)
    assert trained.config.C is not None
    assert trained.history[0]["validation_accuracy"] > 0.6
    assert train_head(digits, OPEN).fingerprint == trained.fingerprint
    predictor = export_predictor(
        trained,
        digits.transform,
        {},
        digits.dataset,
        digits.split.validation,
        features=digits.features,
    )
    assert predictor.contract.model["C"] == trained.config.C


def test_neither_validation_nor_test_images_choose_the_penalty(digits: HeadOnFeatures) -> None:
    values = np.array(digits.features.values)
    held_out = np.concatenate([digits.split.validation, digits.split.test])
    values[held_out] = np.roll(values[held_out], 1, axis=0)
    shuffled = replace(digits, features=replace(digits.features, values=values))
    assert train_head(shuffled, OPEN).graph == train_head(digits, OPEN).graph


def test_mirror_images_count_half(digits: HeadOnFeatures) -> None:
    alone = train_head(digits)
    same = train_head(with_mirrored(digits, digits.features.values))
    expected = alone.reference.probabilities
    np.testing.assert_allclose(same.reference.probabilities, expected, atol=1e-5)
    noise = np.random.default_rng(0).normal(size=digits.features.values.shape)
    other = train_head(with_mirrored(digits, noise.astype(np.float32)))
    assert np.abs(other.reference.probabilities - expected).max() > 0.01


def test_balanced_classes_count_alike(digits: HeadOnFeatures) -> None:
    labels, part = digits.dataset.labels, digits.split.train
    rare = part[(labels[part] != 3) | (np.arange(len(part)) % 8 == 0)]
    unbalanced = replace(digits, split=replace(digits.split, train=rare))
    threes = labels[digits.split.validation][: len(digits.trained.reference.images)] == 3
    sums = {
        setting: train_head(unbalanced, class_weights=setting).reference.probabilities[:, 3].sum()
        for setting in ("none", "balanced")
    }
    assert threes.any()
    assert sums["balanced"] > 1.5 * sums["none"]


def test_features_of_other_images_are_refused(digits: HeadOnFeatures) -> None:
    wrong = replace(digits, features=replace(digits.features, dataset_fingerprint="0" * 64))
    with pytest.raises(TrainingError, match="features are of another dataset"):
        train_head(wrong)


def test_the_search_fits_heads_on_the_features(digits: HeadOnFeatures, tmp_path: Path) -> None:
    config = TrainingPipelineConfig.model_validate(
        {
            "features": {},
            "model": {"name": "logistic_regression"},
            "search": {
                "folds": 2,
                "families": {"logistic_regression": {"model.C": {"choices": [0.01, None]}}},
            },
        }
    )
    assert config.search is not None
    sections = (config.transform, config.model, config.train, config.search)
    job = SearchJob(digits.dataset, digits.split, *sections, features=digits.features)
    assert job.key != replace(job, features=None).key
    write_folds(tmp_path / "folds", job)
    folds = read_folds(tmp_path / "folds")
    assert folds.features is not None
    np.testing.assert_array_equal(folds.features.values, digits.features.values[digits.split.train])
    trials = _TrialRunner(tmp_path / "folds", "validation_accuracy")
    outcome = trials.run({"name": "logistic_regression"}, {}, lambda _step, _score: False)
    assert outcome["state"] == "complete"
    assert min(outcome["fold_scores"]) > 0.6
