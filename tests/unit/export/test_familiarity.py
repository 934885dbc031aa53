"""Unfamiliar images: recognized by the graph itself, at the false rate that was asked for."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score

from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.config.export import ExportConfig, FamiliarityConfig
from cv_factory.config.gates import GateConfig
from cv_factory.errors import ArtifactError
from cv_factory.evaluation.evaluate_predictor import evaluate_predictor
from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.evaluation.gates import Evidence, judge
from cv_factory.evaluation.reports.evaluation_report import render_report
from cv_factory.export.familiarity import add_familiarity, fit_threshold
from cv_factory.export.quantize import quantize
from cv_factory.inference.predictor import Predictor
from tests.support.digits import load_digits
from tests.support.predictors import digits_predictor

MODELS = ["small_cnn", "logistic_regression"]


def photographs(n: int, size: int) -> npt.NDArray[np.uint8]:
    """Return gray pieces of real photographs, uint8 ``(n, size, size, 1)``."""
    rng, photos = np.random.default_rng(0), load_sample_images().images
    pieces = []
    for number in range(n):
        side = int(rng.integers(64, 400))
        photo = Image.fromarray(photos[number % len(photos)]).convert("L")
        left, top = (int(rng.integers(0, limit - side)) for limit in photo.size)
        pieces.append(photo.crop((left, top, left + side, top + side)).resize((size, size)))
    return np.stack([np.asarray(piece)[..., None] for piece in pieces])


def noise(n: int, size: int) -> npt.NDArray[np.uint8]:
    """Return images of random pixels, uint8 ``(n, size, size, 1)``."""
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 1), dtype=np.uint8)


def scores(predictor: Predictor, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the scores of unfamiliarity."""
    unfamiliarity = predictor.predict(images).unfamiliarity
    assert unfamiliarity is not None
    return unfamiliarity


@pytest.mark.parametrize("model", MODELS)
def test_photographs_and_noise_are_unlike_digits(model: str) -> None:
    predictor, dataset, split = digits_predictor(model, has_familiarity=True)
    digits = scores(predictor, dataset.images[split.test])
    for strange in (photographs(200, 8), noise(200, 8)):
        both = np.concatenate([digits, scores(predictor, strange)])
        is_strange = np.arange(len(both)) >= len(digits)
        assert roc_auc_score(is_strange, both) >= 0.95
        assert (both[is_strange] > 1).mean() > 0.8
    assert (digits > 1).mean() < 0.15
    single = [predictor.predict_single_threaded(noise(8, 8)[i : i + 1]) for i in range(8)]
    together = scores(predictor, noise(8, 8))
    np.testing.assert_allclose([r.rows()[0].unfamiliarity for r in single], together, rtol=1e-4)


@pytest.mark.parametrize("model", MODELS)
def test_probabilities_are_those_without_the_score(model: str, tmp_path: Path) -> None:
    plain, dataset, split = digits_predictor(model)
    predictor, _, _ = digits_predictor(model, has_familiarity=True)
    images = dataset.images[split.test]
    before, after = plain.predict(images), predictor.predict(images)
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    np.testing.assert_array_equal(after.features, before.features)
    assert before.unfamiliarity is None
    assert "familiarity" not in plain.contract.to_dict(), "stored predictors keep their fingerprint"

    predictor.save(tmp_path)
    loaded = Predictor.load(tmp_path)
    assert loaded.contract == predictor.contract
    assert loaded.fingerprint == predictor.fingerprint != plain.fingerprint
    golden = loaded.golden
    golden.verify(loaded.predict(golden.images), "digits")
    assert golden.unfamiliarity is not None
    wrong = replace(golden, unfamiliarity=golden.unfamiliarity + np.float32(0.01))
    for other, outputs in ((wrong, loaded), (golden, plain)):
        with pytest.raises(ArtifactError, match="scores the unfamiliarity of its golden samples"):
            other.verify(outputs.predict(golden.images), "digits")


def test_large_scores_are_verified_relative_to_their_size() -> None:
    """Of validation images that equal training images the threshold is tiny, so others' is not."""
    predictor, _, _ = digits_predictor("logistic_regression", has_familiarity=True)
    assert predictor.golden.unfamiliarity is not None
    golden = replace(predictor.golden, unfamiliarity=1e4 * predictor.golden.unfamiliarity)
    assert golden.unfamiliarity is not None
    rounded = replace(golden.outputs, unfamiliarity=golden.unfamiliarity * np.float32(1 + 1e-6))
    golden.verify(rounded, "digits")
    wrong = replace(golden.outputs, unfamiliarity=golden.unfamiliarity * np.float32(1.01))
    with pytest.raises(ArtifactError, match="scores the unfamiliarity"):
        golden.verify(wrong, "digits")


def reconstruct(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Embed digits by PCA and reconstruction error."""
    pca = load_digits(600, n_components=16).transform.pca
    components = pca.components.astype(np.float64)
    pixels = images.reshape(len(images), -1) / 255 - pca.mean.astype(np.float64)
    features = pixels @ components.T
    return np.column_stack([features, np.linalg.norm(pixels - features @ components, axis=1)])


def spectrum(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Embed digits by the logarithm of the energy of each level of detail."""
    level, energies = images[..., 0] / 255, []
    while len(level[0]) > 1:
        half = len(level[0]) // 2
        means = level.reshape(-1, half, 2, half, 2).mean(axis=(2, 4))
        energies.append(((level - means.repeat(2, 1).repeat(2, 2)) ** 2).mean(axis=(1, 2)))
        level = means
    return np.log(np.column_stack(energies) + 1e-5)


def test_the_score_is_the_largest_distance_to_the_nearest_training_image() -> None:
    predictor, dataset, split = digits_predictor("logistic_regression", has_familiarity=True)
    ratios = []
    for embed in (reconstruct, spectrum):
        references, *parts = (
            embed(dataset.images[part]) for part in (split.train, split.validation, split.test)
        )
        std = references.std(axis=0) if embed is spectrum else 1.0
        nearest = [
            np.linalg.norm((rows[:, None] - references[None]) / std, axis=2).min(axis=1)
            for rows in parts
        ]
        bound, _ = fit_threshold(nearest[0], 0.05)
        ratios.append([distances / bound for distances in nearest])
    validation, test = (np.maximum(*parts) for parts in zip(*ratios, strict=True))
    threshold, _ = fit_threshold(validation, 0.05)
    measured = scores(predictor, dataset.images[split.test])
    np.testing.assert_allclose(measured, test / threshold, rtol=1e-3)


def test_validation_images_alone_set_the_threshold() -> None:
    predictor, dataset, split = digits_predictor("logistic_regression", has_familiarity=True)
    again, _, _ = digits_predictor("logistic_regression")
    config = FamiliarityConfig(false_rate=0.05)
    images = np.array(dataset.images)
    images[split.test] = 0
    blank = replace(dataset, images=images, backing=None)
    repeated = add_familiarity(again, blank, split, config)
    assert repeated.graph == predictor.graph, "test images play no part"
    few = add_familiarity(again, dataset, split, FamiliarityConfig(max_references=10))
    assert few.contract.familiarity is not None
    assert few.contract.familiarity.n_references == 10
    assert len(few.graph) < len(predictor.graph)
    off = add_familiarity(again, dataset, split, FamiliarityConfig(method="none"))
    assert off is again


def test_the_false_rate_holds() -> None:
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(2000):
        drawn = rng.normal(size=200) + 10
        threshold, held = fit_threshold(drawn[:100], 0.05)
        assert held == 0.05
        rates.append((drawn[100:] > threshold).mean())
    assert np.mean(rates) == pytest.approx(0.05, abs=0.004)


def test_too_few_validation_images_are_said(caplog: pytest.LogCaptureFixture) -> None:
    assert fit_threshold(np.array([1.0, 3.0, 2.0]), 0.01) == (3.0, 0.25)
    assert fit_threshold(np.arange(1.0, 100.0), 0.01) == (99.0, 0.01)
    predictor, dataset, split = digits_predictor("logistic_regression")
    few = replace(split, validation=split.validation[:9])
    with caplog.at_level(logging.WARNING):
        scored = add_familiarity(predictor, dataset, few, FamiliarityConfig())
    assert "9 validation images cannot show" in caplog.text
    assert scored.contract.familiarity is not None
    assert scored.contract.familiarity.false_rate == 0.1


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_quantized_predictor_has_a_threshold_of_its_own(precision: str) -> None:
    predictor, dataset, split = digits_predictor("small_cnn", has_familiarity=True)
    config = ExportConfig.model_validate({"precision": precision, "min_agreement": 0.8})
    small = quantize(predictor, dataset, split, config)
    before, after = predictor.contract.familiarity, small.contract.familiarity
    assert before is not None
    assert after is not None
    assert (after.false_rate, after.n_images) == (before.false_rate, before.n_images)
    flagged = (scores(small, dataset.images[split.validation]) > 1).mean()
    assert 0.02 < flagged <= 0.05
    assert (scores(small, photographs(200, 8)) > 1).mean() > 0.8
    small.golden.verify(small.predict(small.golden.images), "digits")
    quantized = [
        node.name
        for node in onnx.load_model_from_string(small.graph).graph.node
        if node.name.startswith("familiarity/") and node.op_type.endswith("QuantizeLinear")
    ]
    assert quantized == []


def test_the_evaluation_counts_unfamiliar_test_images(tmp_path: Path) -> None:
    quick = EvaluateConfig(
        bootstrap_samples=100, robustness_images=0, latency_runs=0, explained_per_class=0
    )
    predictor, dataset, split = digits_predictor("logistic_regression", has_familiarity=True)
    evaluation = evaluate_predictor(predictor, dataset, split.test, quick)
    result = evaluation.behavior.familiarity
    assert result is not None
    flagged = scores(predictor, dataset.images[split.test]) > 1
    assert (result.n_unfamiliar, result.n_images) == (flagged.sum(), len(split.test))
    assert result.low < result.share < result.high
    assert result.noise_share == 1.0
    evaluation.save(tmp_path)
    assert Evaluation.load(tmp_path).behavior.familiarity == result
    page = render_report(evaluation)
    assert "Unfamiliar images" in page
    assert f"{result.share:.2%}" in page
    gates = [GateConfig(metric="unfamiliar_share", max=bound) for bound in (0.0, 1.0)]
    assert [v.status for v in judge(gates, Evidence(evaluation))] == ["failed", "passed"]

    plain, _, _ = digits_predictor("logistic_regression")
    unscored = evaluate_predictor(plain, dataset, split.test, quick)
    assert unscored.behavior.familiarity is None
    assert [v.status for v in judge(gates, Evidence(unscored))] == ["failed", "failed"]
