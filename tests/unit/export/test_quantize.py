"""Quantized predictors: smaller, in agreement on validation images, and measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.config.export import ExportConfig
from cv_factory.config.gates import GateConfig
from cv_factory.config.training import TrainingPipelineConfig
from cv_factory.errors import ExportError
from cv_factory.evaluation.evaluate_predictor import evaluate_predictor
from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.evaluation.gates import Evidence, judge, require_precision_gate
from cv_factory.evaluation.reports.evaluation_report import render_report
from cv_factory.export.quantize import quantize
from cv_factory.inference.predictor import Predictor
from tests.support.predictors import digits_predictor

QUICK = EvaluateConfig(
    bootstrap_samples=100, robustness_images=0, latency_runs=0, explained_per_class=0
)


def quantized(precision: str, **settings: float) -> Predictor:
    """Return the digits' calibrated network in another precision."""
    predictor, dataset, split = digits_predictor("small_cnn", calibrated=True)
    config = ExportConfig.model_validate({"precision": precision, "min_agreement": 0.9, **settings})
    return quantize(predictor, dataset, split, config)


@pytest.mark.parametrize(("precision", "difference"), [("float16", 0.005), ("int8", 0.1)])
def test_a_quantized_predictor_is_smaller_and_agrees(
    precision: str, difference: float, tmp_path: Path
) -> None:
    predictor, dataset, split = digits_predictor("small_cnn", calibrated=True)
    small = quantized(precision)
    images = dataset.images[split.test]
    before, after = predictor.predict(images), small.predict(images)
    assert len(small.graph) < 0.85 * len(predictor.graph)
    assert after.probabilities.dtype == np.float32
    assert 0 < np.abs(after.probabilities - before.probabilities).max() < difference
    np.testing.assert_allclose(after.probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(after.features, before.features)
    alone = [small.predict(images[i : i + 1]).probabilities for i in range(8)]
    np.testing.assert_allclose(np.concatenate(alone), after.probabilities[:8], atol=1e-6)

    assert small.contract == replace(predictor.contract, precision=precision)
    assert small.fingerprint not in (predictor.fingerprint, quantized("float32").fingerprint)
    assert quantized(precision).graph == small.graph, "the same again"
    small.save(tmp_path)
    assert Predictor.load(tmp_path).fingerprint == small.fingerprint
    golden = small.golden
    np.testing.assert_array_equal(golden.probabilities, small.predict(golden.images).probabilities)


def test_int8_computes_in_integers_between_preprocessing_and_softmax() -> None:
    graph = onnx.load_model_from_string(quantized("int8").graph).graph
    producers = {output: node.op_type for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert {producers[name] for name in node.input} == {"DequantizeLinear"}, node.name
        if node.op_type == "Softmax":
            assert producers[node.input[0]] not in ("QuantizeLinear",)
    stored = [tensor for tensor in graph.initializer if tensor.name.endswith("quantized")]
    kinds = {tensor.data_type for tensor in stored}
    assert kinds <= {onnx.TensorProto.INT8, onnx.TensorProto.INT32}
    weights = [t for t in stored if t.data_type == onnx.TensorProto.INT8]
    largest = max(np.abs(onnx.numpy_helper.to_array(t).astype(int)).max() for t in weights)
    assert 2 * 255 * largest < 2**15, "older CPUs add two products in 16 bits"


def test_calibration_uses_training_images_only() -> None:
    predictor, dataset, split = digits_predictor("small_cnn", calibrated=True)
    images = np.array(dataset.images)
    images[split.test] = 255
    images[split.validation] = images[split.validation][::-1]
    other = replace(dataset, images=images, backing=None)
    config = ExportConfig(precision="int8", min_agreement=0.5)
    assert quantize(predictor, other, split, config).graph == quantized("int8").graph


def test_low_agreement_stops_the_export_and_names_the_settings() -> None:
    with pytest.raises(ExportError, match=r"In int8 .*export\.min_agreement is 100%"):
        quantized("int8", min_agreement=1.0)


def test_a_model_without_weights_is_refused() -> None:
    predictor, dataset, split = digits_predictor("logistic_regression")
    with pytest.raises(ExportError, match="logistic_regression has no convolution"):
        quantize(predictor, dataset, split, ExportConfig(precision="int8"))
    with pytest.raises(ValidationError, match="logistic_regression is no network"):
        TrainingPipelineConfig.model_validate(
            {"model": {"name": "logistic_regression"}, "export": {"precision": "float16"}}
        )


def test_the_evaluation_reports_the_cost_of_precision(tmp_path: Path) -> None:
    predictor, dataset, split = digits_predictor("small_cnn", calibrated=True)
    evaluation = evaluate_predictor(quantized("int8"), dataset, split.test, QUICK, predictor)
    labels = dataset.labels[split.test]
    float_labels = predictor.predict(dataset.images[split.test]).probabilities.argmax(axis=1)
    cost = evaluation.behavior.precision
    assert cost is not None
    assert (cost.precision, cost.accuracy) == ("int8", evaluation.metrics["accuracy"].value)
    assert cost.float_accuracy == (float_labels == labels).mean()
    assert cost.agreement == (evaluation.predictions.predicted == float_labels).mean()

    evaluation.save(tmp_path)
    assert Evaluation.load(tmp_path).behavior.precision == cost
    page = render_report(evaluation)
    assert "The predictor computes in int8" in page
    assert f"{cost.float_accuracy:.4f}" in page
    gate = GateConfig(metric="accuracy_lost_to_precision", max=0.0)
    worse = replace(cost, accuracy=cost.float_accuracy - 0.01)
    damaged = replace(evaluation, behavior=replace(evaluation.behavior, precision=worse))
    (verdict,) = judge([gate], Evidence(damaged))
    assert verdict.status == "failed"


def test_a_reduced_predictor_needs_its_gate_against_float32() -> None:
    gates = (GateConfig(metric="accuracy", min=0.5),)
    assert require_precision_gate(gates, "float32") == gates
    assert require_precision_gate((), "int8") == (), "without gates nothing is staged"
    loose = (*gates, GateConfig(metric="accuracy_lost_to_precision", max=0.2))
    assert require_precision_gate(loose, "int8") == loose
    required = require_precision_gate(gates, "int8")
    predictor, dataset, split = digits_predictor("small_cnn", calibrated=True)
    alone = evaluate_predictor(quantized("int8"), dataset, split.test, QUICK)
    verdict = judge(required, Evidence(alone))[-1]
    assert (verdict.metric, verdict.status) == ("accuracy_lost_to_precision", "failed")
    assert "was not measured" in verdict.reason
    beside = evaluate_predictor(predictor, dataset, split.test, QUICK, predictor)
    assert judge(required, Evidence(beside))[-1].status == "passed"


def test_float32_keeps_its_former_fingerprint() -> None:
    predictor, _, _ = digits_predictor("small_cnn", calibrated=True)
    assert predictor.contract.precision == "float32"
    assert "precision" not in predictor.contract.to_dict()
