"""Settings that contradict each other are refused together, before anything runs."""

import json
from pathlib import Path

import pytest

from cli.pipeline_config import file_schema
from cv_factory.config.loader import load_config
from cv_factory.config.serving import ServingConfig
from cv_factory.errors import ConfigError
from cv_factory.serving.bundle import read_serving
from tests.support.paths import ROOT


def refusal(pipeline: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(file_schema(pipeline), overrides=overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("evaluate.latency_runs=0; gates=[{metric: latency_ms_batch_1_p50, max: 3}]", "gates.0"),
        ("evaluate.robustness_images=0; gates=[{metric: corruption_accuracy, min: 0}]", "gates.0"),
        ("gates=[{metric: flip_agreement, min: 0.5}]", "evaluate.horizontal_flip=false"),
        ("gates=[{metric: accuracy_lost_to_precision, max: 0.1}]", "export.precision=float32"),
        ("familiarity.method=none; gates=[{metric: unfamiliar_share, max: 1}]", "familiarity"),
        ("gates=[{metric: accuracy, min: 0.5, slice: mode=L}]", "add mode to evaluate.slices"),
        ("gates=[{metric: data_errors, max: 0, explained: {leakage: x}}]", "'no_leakage'"),
        ("evaluate.slices=[klass]", "Did you mean 'class'?"),
        ("register.deploy_after=staging", "there are none"),
        ("features={fine_tune: 2}; model.name=mlp; train.processes=2", "train.processes: is 2"),
        ("export.precision=int8; model.name=mlp", "mlp is no network"),
        ("export.precision=int8; search.families={small_cnn: {}, mlp: {}}", "mlp is no network"),
        ("search.families={small_cnn: {}, mlp: {}}; search.trials=1", "search.trials: is 1, too"),
        ("search.families={mlp: {train.epochs: {choices: [3]}}}", "there is no such setting"),
        ("data.limit=10", "validation.min_images refuses fewer than 20"),
        ("validation.brightness=[0.9, 0.1]", "give the lower bound first"),
        ("validation.severity={labels_as_reference: error}", "validation.reference"),
        ("train.batch_size=8; train.accumulate=16", "accumulate is 16"),
        ("data.fetch={total_seconds: 5}; data.source=http; data.path=http://h", "total_seconds"),
        ("data.http={format: csv, next_key: a}; data.source=http; data.path=http://h", "csv"),
        ("train.learning_rate=.nan", "must be a finite number"),
    ],
)
def test_training_refuses_what_a_step_would_find_out_hours_later(
    overrides: str, expected: str
) -> None:
    assert expected in refusal("training", *overrides.split("; "))


def test_a_request_that_could_never_be_answered_is_no_valid_limit() -> None:
    too_large = refusal("deployment", "serving.limits.max_images=128")
    assert "limits.max_images: is 128, but batching.queue_size is 64" in too_large
    assert "is 32, but" in refusal("deployment", "serving.batching.queue_size=16")
    assert "batching.threads" in refusal(
        "deployment", "serving.batching={threads: 1, runs: 2}", "serving.workers=1"
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("canary_share=0.1; endpoint.shadow_share=0.1", "endpoint.shadow_share: a version is"),
        ("shadow_share=1.1", "endpoint.shadow_share: must be at most 1"),
        ("sticky.by=header", "endpoint.sticky.name: must name the header"),
        ("sticky={by: api_key, name: X-User}", "endpoint.sticky.name: is for by=header"),
        ("sticky={by: header, name: X User}", "endpoint.sticky.name: must match"),
        ("sticky.by=address", "'address' is not allowed"),
        ("tls.certificate=server.pem", "endpoint.tls.key: must be given beside certificate"),
        ("tls.key=server.key", "endpoint.tls.certificate: must be given beside key"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(overrides: str, expected: str) -> None:
    assert expected in refusal("deployment", *f"endpoint.{overrides}".split("; "))


def test_batch_inference_refuses_what_it_would_ignore() -> None:
    message = refusal("batch_inference", "data.height=8", "data.width=8")
    assert "--set data.height=8: data.height: is the predictor's to say" in message
    assert "--set data.width=8: data.width" in message
    assert "belongs to output.path" in refusal(
        "batch_inference", "output.storage_options={anon: true}"
    )


def test_all_contradictions_are_listed_at_once_each_with_its_place() -> None:
    lines = refusal(
        "training",
        "data.limit=10",
        "evaluate.robustness_images=0",
        "gates=[{metric: accuracy, min: 0.1}, {metric: corruption_accuracy, min: 0.2}]",
        "search.families.small_cnn={train.epochs: {low: 5, high: 99999}}",
    ).splitlines()
    assert "data.limit: is 10" in lines[0]
    assert "gates.1: bounds corruption_accuracy" in lines[1]
    assert "small_cnn.train.epochs: must be at most 10000 (got 99999)" in lines[2]
    assert all(line.startswith("--set ") for line in lines)


@pytest.mark.parametrize("source", ["digits", "fashion_mnist", "folder"])
def test_bounds_that_presume_a_dataset_do_not_judge_another_one(source: str) -> None:
    path = ["data.path=pets"] if source == "folder" else []
    config = load_config(
        file_schema("training"),
        ROOT / "configs" / "training.yaml",
        overrides=[f"data.source={source}", *path],
    )
    gates = {(gate.metric, *gate.bound) for gate in config.applicable_gates}  # type: ignore[attr-defined]
    assert {("data_errors", "max", 0.0), ("roc_auc", "min", 0.7)} < gates
    assert (("accuracy", "min", 0.95) in gates) == (source == "digits")


def test_a_stored_bundle_of_before_gets_the_limits_that_it_can_meet(tmp_path: Path) -> None:
    stored = ServingConfig().model_dump(mode="json")
    stored["batching"].update(queue_size=16, threads=1, runs=2)
    file = tmp_path / "serving.json"
    file.write_text(json.dumps(stored))
    config = read_serving(file)
    assert (config.limits.max_images, config.batching.runs) == (16, 1)
    assert ServingConfig.model_validate(config.model_dump()) == config
