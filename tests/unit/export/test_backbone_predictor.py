"""A predictor with a backbone inside: one graph from images to probabilities and features."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import cv_factory.export.run_graph as run_graph_module
from cv_factory.artifacts.onnx_session import open_session
from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.config.export import CalibrationConfig, FamiliarityConfig
from cv_factory.errors import ExportError, TrainingError
from cv_factory.evaluation.evaluate_predictor import evaluate_predictor
from cv_factory.export.familiarity import add_familiarity
from cv_factory.export.onnx_graph import export_predictor
from cv_factory.export.run_graph import run_graph
from cv_factory.inference.predictor import Predictor
from cv_factory.inference.reference import Reference
from cv_factory.monitoring.build_reference import build_reference
from cv_factory.transforms.feature_pca import fit_feature_pca, project_features
from cv_factory.transforms.fitted import FittedTransform
from tests.support.backbones import HeadOnFeatures, fit_head, make_backbone

CALIBRATED = CalibrationConfig(method="temperature")


@pytest.fixture(scope="module")
def head() -> HeadOnFeatures:
    return fit_head()


@pytest.fixture(scope="module")
def plain(head: HeadOnFeatures) -> Predictor:
    return export(head)


@pytest.fixture(scope="module")
def predictor(head: HeadOnFeatures, plain: Predictor) -> Predictor:
    config = FamiliarityConfig(false_rate=0.05)
    return add_familiarity(plain, head.dataset, head.split, config, head.features)


def export(head: HeadOnFeatures) -> Predictor:
    validation = head.split.validation
    return export_predictor(
        head.trained, head.transform, {}, head.dataset, validation, CALIBRATED, head.features
    )


def test_features_are_the_pca_of_the_backbones(predictor: Predictor, head: HeadOnFeatures) -> None:
    indices = head.split.test[:40]
    expected = project_features(head.features.values[indices], head.transform.pca)
    outputs = predictor.predict(head.dataset.images[indices])
    np.testing.assert_allclose(outputs.features, expected, atol=1e-4)
    assert predictor.contract.n_features == 8


def test_the_feature_pca_is_scikit_learns() -> None:
    from sklearn.decomposition import PCA as Reference

    rng = np.random.default_rng(0)
    values = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 40)) + 3).astype(np.float32)
    pca = fit_feature_pca(values, np.arange(0, 500, 2), 4)
    reference = Reference(4, svd_solver="full").fit(values[::2].astype(np.float64))
    np.testing.assert_allclose(pca.explained_variance, reference.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(
        pca.explained_variance_ratio, reference.explained_variance_ratio_, rtol=1e-5
    )
    expected = reference.transform(values[:9].astype(np.float64))
    signs = np.sign((pca.components * reference.components_).sum(axis=1))
    np.testing.assert_allclose(project_features(values[:9], pca), expected * signs, atol=1e-3)
    with pytest.raises(TrainingError, match="at most 40 components"):
        fit_feature_pca(values, np.arange(500), 41)


def test_the_transform_is_stored_with_its_backbone(head: HeadOnFeatures, tmp_path: Path) -> None:
    head.transform.save(tmp_path)
    loaded = FittedTransform.load(tmp_path)
    assert loaded.backbone == head.features.backbone.fingerprint
    assert loaded.patches is None
    assert loaded.fingerprint == head.transform.fingerprint


def test_the_contract_names_the_backbone(predictor: Predictor, tmp_path: Path) -> None:
    predictor.save(tmp_path)
    loaded = Predictor.load(tmp_path)
    assert loaded.contract == predictor.contract
    source = loaded.contract.backbone
    assert source is not None
    assert (source.name, source.license, source.input_size) == ("random", "Apache-2.0", 12)


def test_two_exports_are_equal(head: HeadOnFeatures, plain: Predictor) -> None:
    assert export(head).fingerprint == plain.fingerprint


def test_stored_features_stand_for_the_backbone_in_an_export(
    head: HeadOnFeatures, predictor: Predictor
) -> None:
    graph, names = (
        onnx.load_model_from_string(predictor.graph),
        list(predictor.contract.output_names),
    )
    indices = head.split.validation[::-1]
    stored = run_graph(graph, names, head.dataset, indices, head.features)
    for computed, expected in zip(
        run_graph(graph, names, head.dataset, indices), stored, strict=True
    ):
        np.testing.assert_allclose(computed, expected, atol=1e-5)


def test_an_export_runs_the_backbone_on_few_images(
    head: HeadOnFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[bytes] = []

    def open_and_record(graph: bytes) -> object:
        graphs.append(graph)
        return open_session(graph)

    monkeypatch.setattr(run_graph_module, "open_session", open_and_record)
    exported = export(head)
    config = FamiliarityConfig()
    add_familiarity(exported, head.dataset, head.split, config, head.features)
    assert len(graphs) >= 4
    for graph in graphs:
        model = onnx.load_model_from_string(graph).graph
        assert "Conv" not in {node.op_type for node in model.node}
        assert "backbone_features" in {value.name for value in model.input}


def test_unfamiliar_images_are_recognized_in_features_and_detail(
    predictor: Predictor, head: HeadOnFeatures
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)
    unlike, alike = (
        predictor.predict(images).unfamiliarity
        for images in (noise, head.dataset.images[head.split.test])
    )
    assert unlike is not None
    assert alike is not None
    assert (unlike > 1).mean() > 0.9
    assert (alike > 1).mean() < 0.2
    names = {node.name for node in onnx.load_model_from_string(predictor.graph).graph.node}
    spaces = {name.split("/")[1] for name in names if name.startswith("familiarity/")}
    assert spaces > {"features", "spectrum", "network"}


def test_it_is_evaluated_as_any_predictor(predictor: Predictor, head: HeadOnFeatures) -> None:
    config = EvaluateConfig(robustness_images=8, latency_runs=1, bootstrap_samples=100)
    reference = build_reference(predictor, head.dataset, head.split, 8, config.seed)
    evaluation = evaluate_predictor(
        predictor, head.dataset, head.split.test, config, reference=reference
    )
    behavior = evaluation.behavior
    assert {row.n_images for row in behavior.corruptions} == {8}
    scored_again = evaluate_predictor(predictor, head.dataset, head.split.test, config)
    assert evaluation.metrics == scored_again.metrics
    assert behavior.familiarity == scored_again.behavior.familiarity
    assert behavior.corruptions != scored_again.behavior.corruptions, "of 64 images, not of 8"
    assert behavior.explanations[0].method == "occlusion"
    assert behavior.consistency is not None
    assert behavior.consistency.batch_difference < 1e-5
    assert behavior.cost is not None
    convolution = 2 * 24 * 3 * 25 * 16
    assert convolution < behavior.cost.operations < 3 * convolution


def test_an_export_that_differs_from_the_head_is_refused(head: HeadOnFeatures) -> None:
    wrong = head.trained.reference.probabilities.copy()
    wrong[3, 4] += np.float32(2e-4)
    reference = replace(head.trained.reference, probabilities=wrong)
    with pytest.raises(ExportError, match=r"differs from the trained model by 2\.0"):
        export(replace(head, trained=replace(head.trained, reference=reference)))


def test_parts_of_different_runs_are_refused(head: HeadOnFeatures) -> None:
    other = replace(head.features, backbone=make_backbone(input_size=16))
    with pytest.raises(ExportError, match="not fitted on the features of this backbone"):
        export(replace(head, features=other))


def test_a_reference_keeps_the_scores_of_unfamiliarity(
    predictor: Predictor, head: HeadOnFeatures, tmp_path: Path
) -> None:
    reference = build_reference(predictor, head.dataset, head.split, 0, 0)
    reference.save(tmp_path)
    loaded = Reference.load(tmp_path)
    assert loaded.unfamiliarity is not None
    expected = predictor.predict(head.dataset.images[head.split.test]).unfamiliarity
    np.testing.assert_array_equal(loaded.unfamiliarity, expected)
