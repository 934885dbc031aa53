"""Corruptions, consistency, cost and explanations of predictors whose answers are known."""

from typing import cast

import numpy as np
import pytest

from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.evaluation import behavioral_checks
from cv_factory.evaluation.corruptions import corrupt, corruption_names
from cv_factory.evaluation.evaluate_predictor import evaluate_predictor
from cv_factory.evaluation.explain import (
    choose,
    classical_head,
    explain,
    explain_chosen,
    occlusion,
)
from cv_factory.evaluation.graph_size import count
from cv_factory.inference.predictor import Prediction, Predictor
from tests.support.predictors import digits_predictor


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", corruption_names())
def test_corruptions_are_seeded_and_grow_with_severity(name, channels):
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.normal(size=(12, 24, 20, channels)), axis=2)
    images = np.clip(128 + 12 * smooth, 0, 255).astype(np.uint8)
    before = images.copy()
    changes = []
    for severity in (1, 2, 3):
        corrupted = corrupt(images, name, severity, seed=1)
        assert (corrupted.dtype, corrupted.shape) == (images.dtype, images.shape)
        np.testing.assert_array_equal(corrupted, corrupt(images, name, severity, seed=1))
        changes.append(np.abs(corrupted.astype(float) - images).mean())
    np.testing.assert_array_equal(images, before)
    assert 0 < changes[0] < changes[1] < changes[2]


class _Bright:
    """Stands in for a predictor: bright images, in a batch of their own, are of class 1."""

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise

    def predict(self, images):
        left = images[:, :, : images.shape[2] // 2].mean(axis=(1, 2, 3)) / 255
        left = np.clip(left + self.noise * (len(images) > 1), 0, 1)
        return Prediction(np.stack([1 - left, left], axis=1).astype(np.float32), left[:, None])


def bright(noise: float = 0.0) -> Predictor:
    return cast(Predictor, _Bright(noise))


def test_consistency_finds_what_depends_on_the_batch():
    images = np.random.default_rng(0).integers(0, 255, (20, 6, 6, 1), dtype=np.uint8)
    assert behavioral_checks.measure_consistency(bright(), images, flip=False).batch_difference == 0
    shaky = behavioral_checks.measure_consistency(bright(noise=0.1), images, flip=False)
    assert shaky.batch_difference == pytest.approx(0.1, abs=1e-6)
    assert shaky.repeat_difference == 0
    assert shaky.flip_agreement is None


def test_flips_are_compared_where_labels_survive_them():
    images = np.zeros((10, 4, 4, 1), dtype=np.uint8)
    images[:5, :, :2] = 255
    assert behavioral_checks.measure_consistency(bright(), images, flip=True).flip_agreement == 0.5


def test_occlusion_finds_the_part_that_counts():
    image = np.full((20, 20, 1), 20, dtype=np.uint8)
    image[8:12, 2:6] = 255
    heat = occlusion(bright(), image, 1)
    assert heat.shape == (20, 20)
    assert heat[8:12, 2:6].mean() > 5 * np.abs(heat[:, 12:]).mean()


def test_robustness_counts_right_answers():
    images = np.full((40, 8, 8, 1), 200, dtype=np.uint8)
    config = EvaluateConfig(bootstrap_samples=100)
    results = behavioral_checks.measure_robustness(
        bright(), images, np.ones(40, dtype=np.int64), config
    )
    assert len(results) == 3 * len(corruption_names())
    by_name = {(r.name, r.severity): r for r in results}
    assert by_name["gaussian_blur", 3].accuracy == 1.0
    # Every second image is darkened by 0.4 of the range, to 98.
    assert by_name["brightness", 3].accuracy == 0.5
    assert all(r.low <= r.accuracy <= r.high and r.n_images == 40 for r in results)


def test_confused_pairs_show_the_surest_errors_first():
    labels = np.array([0, 0, 0, 1, 2])
    predicted = np.array([1, 1, 0, 0, 2])
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1)
    sure = np.array([0.6, 0.9, 0.9, 0.5, 0.9])
    first, second = behavioral_checks.sample_confused(
        images, list("abcde"), labels, predicted, sure
    )
    assert (first.label, first.predicted, first.ids) == (0, 1, ("b", "a"))
    assert first.images.ravel().tolist() == [1, 0]
    assert (second.label, second.predicted, second.ids) == (1, 0, ("d",))
    assert behavioral_checks.sample_confused(images, list("abcde"), labels, labels, sure) == ()


def test_errors_and_hits_of_every_class_are_chosen():
    labels, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0])
    chosen = choose(labels, predicted, np.array([0.6, 0.9, 0.8, 0.7, 0.7]), per_class=1)
    assert chosen.tolist() == [2, 4, 1, 3]
    assert len(choose(np.arange(99), np.arange(99), np.ones(99), 8)) == 24
    many = np.arange(200) % 20
    chosen = choose(many, np.where(np.arange(200) < 100, many, (many + 1) % 20), np.ones(200), 4)
    assert len(chosen) == 24
    assert set(many[chosen]) == set(range(20)), "hits are of the classes that errors do not show"


def test_blank_explanations_and_images_give_way_to_others():
    predictor, dataset, split = digits_predictor("small_cnn")
    images, labels = dataset.images[split.test].copy(), dataset.labels[split.test]
    images[::10] = 7
    scores = predictor.predict(images).probabilities
    explained = explain_chosen(
        predictor,
        images,
        [str(i) for i in range(len(images))],
        labels,
        scores.argmax(axis=1),
        np.where(np.arange(len(images)) % 10, 0.5, 0.9),
        2,
        excluded=np.zeros(len(images), bool),
    )
    assert len(explained) > 10
    assert all(row.image.std() > 0 and np.abs(row.heat).max() > 0 for row in explained)


@pytest.fixture(scope="module", params=["logistic_regression", "small_cnn"])
def trained(request):
    """A predictor of the digits, its dataset, and images of its test part."""
    predictor, dataset, split = digits_predictor(request.param)
    return request.param, predictor, dataset, split.test


def test_explanations_of_real_predictors(trained):
    name, predictor, dataset, test = trained
    images, labels = dataset.images[test[:6]], dataset.labels[test[:6]]
    explained = explain(predictor, images, [str(i) for i in range(6)], labels)
    assert len(explained) == 6
    for row in explained:
        assert row.heat.shape == (8, 8)
        assert np.isfinite(row.heat).all()
        assert np.abs(row.heat).max() > 0
        assert row.method.startswith("Shapley" if name == "logistic_regression" else "occlusion")
    again = explain(predictor, images, [str(i) for i in range(6)], labels)
    np.testing.assert_array_equal(explained[0].heat, again[0].heat)


def test_shapley_values_of_a_linear_model_are_its_weights_times_its_features():
    predictor, dataset, split = digits_predictor("logistic_regression")
    head = classical_head(predictor.graph)
    image = dataset.images[split.test[:1]]
    features = predictor.predict(image).features[0]
    zero = np.zeros_like(features)
    values = head.shapley_values(features, 3)
    # Efficiency: the values add up to the evidence gained over the mean image.
    (gained,) = head.evidence(features[None], 3) - head.evidence(zero[None], 3)
    assert values.sum() == pytest.approx(gained, abs=1e-4)
    # Linearity: each value is what its component alone changes.
    alone = np.diag(features).astype(np.float32)
    expected = head.evidence(alone, 3) - head.evidence(zero[None], 3)
    np.testing.assert_allclose(values, expected, atol=1e-4)
    heat = head.to_pixels(values, image[0], features)
    assert heat.sum() == pytest.approx(values.sum(), abs=1e-3)


def test_cost_counts_what_the_graph_holds(trained):
    name, predictor, dataset, test = trained
    parameters, operations, operators = count(predictor.graph)
    if name == "logistic_regression":
        # PCA: 64 pixels to 16 components; classifier: 16 to 10 classes.
        assert operations == 2 * 64 * 16 + 2 * 16 * 10
        assert parameters > 64 * 16 + 64 + 160 + 10
    else:
        assert operators["Conv"] >= 3
        # A 3x3 convolution of 8 to 8 channels at 8x8 pixels alone is 73,728 of them.
        assert operations > 73_728
    cost = behavioral_checks.measure_cost(predictor, dataset.images[test[:4]], runs=5)
    assert cost.size_bytes == len(predictor.graph)
    assert set(cost.latency_ms) == {*("batch_1_p50", "batch_1_p95", "batch_32_p50", "batch_32_p95")}
    assert 0 < cost.latency_ms["batch_1_p50"] <= cost.latency_ms["batch_1_p95"]
    assert (
        behavioral_checks.measure_cost(predictor, dataset.images[test[:4]], runs=0).latency_ms == {}
    )


def test_a_predictor_is_evaluated_from_images_to_report(trained, tmp_path):
    _, predictor, dataset, test = trained
    assert isinstance(dataset, ImageDataset)
    config = EvaluateConfig(bootstrap_samples=100, robustness_images=40, latency_runs=3)
    evaluation = evaluate_predictor(predictor, dataset, test, config)
    assert {s.column for s in evaluation.slices} == {"class", "brightness", "contrast", "sharpness"}
    behavior = evaluation.behavior
    # 64 images at least, for the consistency checks.
    assert {r.n_images for r in behavior.corruptions} == {64}
    assert behavior.consistency.batch_difference < 1e-5
    assert behavior.consistency.repeat_difference == 0
    assert len(behavior.explanations) >= 10
    evaluation.save(tmp_path)
    assert type(evaluation).load(tmp_path).slices == evaluation.slices


def test_what_is_not_asked_for_is_not_measured(trained):
    _, predictor, dataset, test = trained
    config = EvaluateConfig(
        bootstrap_samples=100, robustness_images=0, latency_runs=0, explained_per_class=0, slices=[]
    )
    evaluation = evaluate_predictor(predictor, dataset, test, config)
    assert evaluation.slices == ()
    assert evaluation.behavior.corruptions == ()
    assert evaluation.behavior.explanations == ()
    assert "corruption_accuracy" not in evaluation.behavior.figures()
