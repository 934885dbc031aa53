"""Golden samples show every exchange of two classes, in every kind of predictor."""

import logging
from dataclasses import replace
from itertools import combinations

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from cv_factory.config.export import ExportConfig
from cv_factory.config.serving import ServingConfig
from cv_factory.data.encode import encode_png
from cv_factory.deployment.verify import VerificationError, verify_golden_samples
from cv_factory.errors import ArtifactError
from cv_factory.export.golden_samples import (
    choose_easy_and_hard,
    find_equal_classes,
    select_golden_samples,
)
from cv_factory.export.quantize import quantize
from cv_factory.inference.predictor import GoldenSamples, Prediction, Predictor
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.postprocessors import build_postprocessor
from tests.support.predictors import digits_predictor


def export_digits(model: str, precision: str) -> Predictor:
    predictor, dataset, split = digits_predictor(model, calibrated=True)
    config = ExportConfig.model_validate({"precision": precision, "min_agreement": 0.9})
    return quantize(predictor, dataset, split, config)


def swap(
    probabilities: npt.NDArray[np.float32], first: int, second: int
) -> npt.NDArray[np.float32]:
    swapped = probabilities.copy()
    swapped[:, [first, second]] = swapped[:, [second, first]]
    return swapped


def swap_outputs(golden: GoldenSamples, first: int, second: int) -> Prediction:
    return replace(golden.outputs, probabilities=swap(golden.probabilities, first, second))


def draw(
    n_images: int, n_classes: int, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Draw probabilities of which four in five are right, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n_images) % n_classes
    shown = np.where(rng.random(n_images) < 0.8, labels, rng.integers(0, n_classes, n_images))
    logits = rng.normal(size=(n_images, n_classes)) + 6 * np.eye(n_classes)[shown]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return scores.astype(np.float32), labels


@pytest.mark.parametrize(
    ("model", "precision"),
    [
        ("logistic_regression", "float32"),
        ("small_cnn", "float32"),
        ("small_cnn", "float16"),
        ("small_cnn", "int8"),
    ],
)
def test_each_exchange_of_two_classes_fails_the_proof(model: str, precision: str) -> None:
    golden = export_digits(model, precision).golden
    golden.verify(golden.outputs, "unchanged")
    for pair in combinations(range(10), 2):
        with pytest.raises(ArtifactError, match="answers its golden samples differently"):
            golden.verify(swap_outputs(golden, *pair), f"{pair} swapped")


@pytest.mark.parametrize("top_k", [None, 3])
def test_each_exchange_of_two_classes_fails_the_proof_over_http(top_k: int | None) -> None:
    predictor = export_digits("logistic_regression", "float32")
    settings = {"top_k": top_k}
    serving = ServingConfig.model_validate(
        {"postprocessor": {"name": "ranked", "settings": settings}}
    )
    bundle = Bundle(predictor, serving, "digits", "1", "2026-01-01T00:00:00+00:00")
    golden = predictor.golden
    numbers = {encode_png(image): number for number, image in enumerate(golden.images)}
    postprocess = build_postprocessor("ranked", settings, predictor.contract.class_names)

    def verify(probabilities: npt.NDArray[np.float32]) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            output = postprocess(probabilities[numbers[request.content]])
            prediction = {"label": output.label, "probabilities": output.probabilities}
            return httpx.Response(200, json={"version": "1", "predictions": [prediction]})

        transport = httpx.MockTransport(answer)
        verify_golden_samples("http://service", bundle, timeout=1.0, transport=transport)

    verify(golden.probabilities)
    noise = np.random.default_rng(0).uniform(-4e-6, 4e-6, golden.probabilities.shape)
    verify((golden.probabilities + noise).clip(0).astype(np.float32))
    for pair in combinations(range(10), 2):
        with pytest.raises(VerificationError, match="answers golden sample"):
            verify(swap(golden.probabilities, *pair))


def test_samples_are_easy_and_hard_validation_images_of_all_classes() -> None:
    predictor, dataset, split = digits_predictor("logistic_regression")
    scores = predictor.predict(dataset.images[split.validation]).probabilities
    labels = dataset.labels[split.validation]
    chosen = choose_easy_and_hard(scores, labels)
    golden = predictor.golden
    np.testing.assert_array_equal(dataset.images[split.validation[chosen]], golden.images)
    np.testing.assert_allclose(scores[chosen], golden.probabilities, atol=1e-6)
    assert set(labels[chosen[:10]]) == set(range(10)), "the first ten show every class"
    assert (np.bincount(labels[chosen], minlength=10) >= 2).all()
    of_label = scores[np.arange(len(labels)), labels]
    for label in range(10):
        mine = of_label[chosen][labels[chosen] == label]
        assert mine.max() == of_label[labels == label].max(), "the easiest"
        assert mine.min() < np.median(of_label[labels == label]), "a hard one"
    best_two = np.sort(golden.probabilities, axis=1)[:, -2:]
    assert (best_two[:, 1] - best_two[:, 0]).min() > 5e-4, "no label that rounding could change"


def test_samples_of_a_quantized_predictor_are_its_own() -> None:
    _, dataset, split = digits_predictor("small_cnn", calibrated=True)
    small = export_digits("small_cnn", "int8")
    expected = select_golden_samples(small, dataset, split.validation)
    np.testing.assert_array_equal(small.golden.images, expected.images)
    np.testing.assert_array_equal(small.golden.probabilities, expected.probabilities)


@pytest.mark.parametrize(
    ("n_classes", "n_samples"), [(2, 16), (3, 18), (10, 20), (32, 64), (40, 64), (100, 100)]
)
def test_number_of_samples(n_classes: int, n_samples: int) -> None:
    scores, labels = draw(20 * n_classes, n_classes)
    chosen = choose_easy_and_hard(scores, labels)
    assert len(chosen) == len(set(chosen.tolist())) == n_samples
    per_class = np.bincount(labels[chosen], minlength=n_classes)
    assert per_class.min() >= (2 if n_classes <= 32 else 1)
    assert find_equal_classes(scores[chosen]) == []
    golden = GoldenSamples(np.empty(0, np.uint8), scores[chosen], scores[chosen])
    for pair in combinations(range(n_classes), 2):
        with pytest.raises(ArtifactError):
            golden.verify(swap_outputs(golden, *pair), "swapped")


def test_a_class_without_validation_images_is_shown_by_another_image_predicted_as_it() -> None:
    scores, labels = draw(60, 3)
    labels = np.where(labels == 2, 0, labels)
    chosen = choose_easy_and_hard(scores, labels)
    assert 2 in scores[chosen].argmax(axis=1)
    assert len(choose_easy_and_hard(scores[:3], labels[:3])) == 3, "fewer images than samples"


def test_near_ties_are_left_out_since_rounding_could_change_their_label() -> None:
    scores, labels = draw(40, 2)
    scores[labels == 1] = [0.49999, 0.50001]
    chosen = choose_easy_and_hard(scores, labels)
    assert (labels[chosen] == 0).all()
    ties = np.full((4, 2), 0.5, np.float32)
    assert len(choose_easy_and_hard(ties, labels[:4])) == 4, "there is nothing else"


def test_classes_that_no_sample_can_tell_apart_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    predictor, dataset, split = digits_predictor("logistic_regression")

    class NeverPredicts789(Predictor):
        def predict(self, images: npt.NDArray[np.uint8]) -> Prediction:
            prediction = super().predict(images)
            scores = prediction.probabilities.copy()
            scores[:, 7:] = 0.0
            return replace(prediction, probabilities=scores)

    model = NeverPredicts789(predictor.graph, predictor.contract, predictor.golden)
    with caplog.at_level(logging.WARNING):
        select_golden_samples(model, dataset, split.validation)
    assert "cannot tell '7' from '8' (and 2 more pairs of classes)" in caplog.text
