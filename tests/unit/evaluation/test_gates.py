"""Gates: at the bound, around it, beyond chance or not, and where there is nothing to compare."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.config.gates import GateConfig
from cv_factory.evaluation.behavior import Behavior, Consistency, CorruptionResult, Cost
from cv_factory.evaluation.evaluate_probabilities import evaluate
from cv_factory.evaluation.evaluation import Evaluation, Metric
from cv_factory.evaluation.gate_verdict import all_passed
from cv_factory.evaluation.gates import Evidence, judge

NAMES = ("cat", "dog")
CONFIG = EvaluateConfig(bootstrap_samples=200)


def evaluation_with(n_right: int, n_images: int = 100, names=NAMES, prefix="image") -> Evaluation:
    """An evaluation in which the first so many images are right."""
    labels = np.arange(n_images) % 2
    predicted = np.where(np.arange(n_images) < n_right, labels, 1 - labels)
    probabilities = np.where(np.eye(2)[predicted] == 1, 0.8, 0.2)
    ids = [f"{prefix}-{i}" for i in range(n_images)]
    cut = {"camera": ["old" if i % 10 == 9 else "new" for i in range(n_images)]}
    fingerprint = f"{n_right:064d}"
    return evaluate(probabilities, labels, ids, names, fingerprint, CONFIG, slices=cut)


def minimum(bound, metric="accuracy", **more):
    return GateConfig(metric=metric, min=bound, **more)


def drop(bound, metric="accuracy", **more):
    return GateConfig(metric=metric, max_drop_vs_production=bound, **more)


def gain(bound, metric="accuracy"):
    return GateConfig(metric=metric, min_gain_vs_production=bound)


def one(gate, candidate, production=None, **more):
    (verdict,) = judge([gate], Evidence(candidate, production, config=CONFIG, **more))
    return verdict


@pytest.mark.parametrize(("n_right", "status"), [(94, "failed"), (95, "passed"), (96, "passed")])
def test_absolute_gate(n_right, status):
    verdict = one(minimum(0.95), evaluation_with(n_right))
    assert verdict.status == status
    assert (verdict.metric, verdict.bound) == ("accuracy", 0.95)
    assert verdict.observed == n_right / 100
    assert verdict.gate == "accuracy at least 0.95"
    assert f"{n_right / 100:.4f}" in verdict.reason


@pytest.mark.parametrize(
    ("n_right", "status"),
    [
        (100, "passed"),
        (97, "passed"),
        # One image below the bound, but three lost images are chance (p = 0.25) ...
        (94, "passed"),
        # ... and nine are not (p = 0.004).
        (88, "failed"),
    ],
)
def test_a_drop_counts_when_it_is_large_and_beyond_chance(n_right, status):
    verdict = one(drop(0.02), evaluation_with(n_right), evaluation_with(97))
    assert verdict.status == status
    assert verdict.observed == pytest.approx((n_right - 97) / 100)
    assert verdict.gate == "accuracy no more than 0.02 worse than production"
    assert "McNemar" in verdict.reason


def test_a_drop_within_the_bound_passes_though_it_is_beyond_chance():
    verdict = one(drop(0.1), evaluation_with(88), evaluation_with(97))
    assert verdict.status == "passed"
    assert "beyond chance" in verdict.reason


@pytest.mark.parametrize(
    ("n_right", "status"), [(80, "failed"), (83, "failed"), (90, "passed"), (70, "failed")]
)
def test_a_gain_counts_when_it_is_beyond_chance(n_right, status):
    verdict = one(gain(0.0), evaluation_with(n_right), evaluation_with(80))
    assert verdict.status == status


def test_a_gain_below_the_bound_is_not_enough():
    assert one(gain(0.2), evaluation_with(90), evaluation_with(80)).status == "failed"


@pytest.mark.parametrize("metric", ["macro_f1", "roc_auc", "log_loss", "brier"])
def test_other_metrics_are_compared_by_a_paired_bootstrap(metric):
    better, worse = evaluation_with(95), evaluation_with(75)
    for candidate, production, drops, gains in (
        (better, worse, "passed", "passed"),
        (worse, better, "failed", "failed"),
        (better, better, "passed", "failed"),
    ):
        assert one(drop(0.01, metric), candidate, production).status == drops
        verdict = one(gain(0.01, metric), candidate, production)
        assert verdict.status == gains
        assert "paired bootstrap" in verdict.reason


def equal_models(seed, n_images=400):
    """Two evaluations of equally good models, right on 90 % of the images each."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n_images) % 2
    found = []
    for _ in range(2):
        predicted = np.where(rng.random(n_images) < 0.9, labels, 1 - labels)
        probabilities = np.where(np.eye(2)[predicted] == 1, 0.8, 0.2)
        ids = [str(i) for i in range(n_images)]
        config = EvaluateConfig(bootstrap_samples=100)
        found.append(evaluate(probabilities, labels, ids, NAMES, f"{seed:064d}", config))
    return found


def test_noise_neither_promotes_nor_blocks():
    """Of equal models no more than the 5 % that the tests allow, in both directions together."""
    promoted = blocked = 0
    for seed in range(100):
        candidate, production = equal_models(seed)
        promoted += one(gain(0.0), candidate, production).status == "passed"
        blocked += one(drop(0.0), candidate, production).status == "failed"
    assert promoted <= 6
    assert blocked <= 6


@settings(max_examples=30, deadline=None)
@given(n_images=st.integers(2, 5000), right=st.integers(0, 5000))
def test_exactly_at_the_bound_passes_and_one_image_less_fails(n_images, right):
    share = (right % (n_images + 1)) / n_images
    base = evaluation_with(1, 2)

    def having(accuracy):
        return replace(base, metrics={"accuracy": Metric(accuracy, reason="not needed here")})

    assert one(minimum(share), having(share)).status == "passed"
    assert one(minimum(share), having(share - 1 / n_images)).status == "failed"


def test_without_production_a_relative_gate_does_not_block_and_an_absolute_one_does():
    gates = [drop(0.0), gain(0.0), minimum(0.99)]
    *relative, absolute = judge(gates, Evidence(evaluation_with(50)))
    assert [(v.status, v.observed) for v in relative] == [("not_applicable", None)] * 2
    assert absolute.status == "failed"
    assert all_passed(relative)
    assert not all_passed([*relative, absolute])


def test_production_itself_need_not_beat_itself():
    verdict = one(gain(0.0), evaluation_with(50), evaluation_with(50), is_production=True)
    assert verdict.status == "not_applicable"


def test_no_gates_is_no_objection():
    assert judge([], Evidence(evaluation_with(1))) == ()
    assert all_passed(())


def test_slices_are_gated_by_name_or_by_their_worst():
    # The 11 wrong images are the last ones, of which two are of the old camera.
    evaluation = replace(evaluation_with(189, 200), min_slice_images=20)
    by_name = one(minimum(0.95, slice="camera=old"), evaluation)
    worst = one(minimum(0.95, slice="camera"), evaluation)
    assert by_name.observed == worst.observed == 18 / 20
    assert (by_name.status, worst.status) == ("failed", "failed")
    assert "camera=old (20 images)" in worst.reason
    assert one(minimum(0.94, slice="camera=new"), evaluation).status == "passed"
    loss = GateConfig(metric="log_loss", max=0.2, slice="camera")
    assert one(loss, evaluation).status == "failed"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lens", "there is no slice lens; columns with slices: camera"),
        ("camera=broken", "no test image has camera=broken"),
        ("camera=old", "camera=old has fewer than"),
    ],
)
def test_a_slice_that_is_not_there_or_too_small_fails_its_gate(name, reason):
    verdict = one(minimum(0.0, slice=name), evaluation_with(100))
    assert (verdict.status, verdict.observed) == ("failed", None)
    assert verdict.reason.startswith(reason)


def test_a_drop_on_a_slice_is_tested_on_its_images():
    better, worse = evaluation_with(1000, 1000), evaluation_with(850, 1000)
    assert one(drop(0.0, slice="camera=old"), worse, better).status == "failed"
    assert one(drop(0.2, slice="camera=old"), worse, better).status == "passed"


def measured():
    cost = Cost({"batch_1_p95": 4.0}, 2_000_000, 1000, 5000, {}, 2, "x86_64")
    corrupted = tuple(CorruptionResult("jpeg", s, a, a, a, 9) for s, a in ((1, 0.9), (2, 0.7)))
    behavior = Behavior(corrupted, Consistency(64, 0.0, 0.0, 0.97), cost)
    return replace(evaluation_with(90), behavior=behavior)


@pytest.mark.parametrize(
    ("gate", "status"),
    [
        (GateConfig(metric="latency_ms_batch_1_p95", max=5.0), "passed"),
        (GateConfig(metric="latency_ms_batch_1_p95", max=3.0), "failed"),
        (GateConfig(metric="latency_ms_batch_32_p50", max=99.0), "failed"),
        (GateConfig(metric="size_mb", max=2.0), "passed"),
        (GateConfig(metric="parameters", max=999.0), "failed"),
        (GateConfig(metric="corruption_accuracy", min=0.8), "passed"),
        (GateConfig(metric="flip_agreement", min=0.98), "failed"),
    ],
)
def test_cost_and_robustness_are_gated(gate, status):
    assert one(gate, measured()).status == status


def test_what_was_not_measured_fails_its_gate():
    verdict = one(GateConfig(metric="size_mb", max=5.0), evaluation_with(90))
    assert (verdict.status, verdict.observed) == ("failed", None)
    assert "not measured" in verdict.reason


@pytest.mark.parametrize(
    ("explained", "status", "observed"),
    [({}, "failed", 1.0), ({"no_leakage": "known twins, see ticket 12"}, "passed", 0.0)],
)
def test_only_unexplained_data_errors_count(explained, status, observed):
    gate = GateConfig(metric="data_errors", max=0.0, explained=explained)
    findings = {"no_leakage": "error", "class_imbalance": "warning"}
    verdict = one(gate, evaluation_with(90), data_findings=findings)
    assert (verdict.status, verdict.observed) == (status, observed)
    assert one(gate, evaluation_with(90)).reason == "the data was not validated"


@pytest.mark.parametrize(
    "fields",
    [
        {"metric": "accuracy"},
        {"metric": "accuracy", "min": 0.5, "max_drop_vs_production": 0.1},
        {"metric": "accuracy", "max": 0.5},
        {"metric": "log_loss", "min": 0.5},
        {"metric": "size_mb", "max_drop_vs_production": 0.5},
        {"metric": "roc_auc", "min": 0.5, "slice": "class"},
        {"metric": "accuracy", "min": 0.5, "explained": {"no_leakage": "b"}},
        {"metric": "accuracy", "min": 1.5},
    ],
)
def test_a_gate_that_makes_no_sense_cannot_be_configured(fields):
    with pytest.raises(ValidationError):
        GateConfig(**fields)


def test_a_metric_that_cannot_be_computed_fails_its_gates():
    known = evaluation_with(90)
    unknown = replace(
        known, metrics={**known.metrics, "roc_auc": Metric(None, reason="no test images of 'dog'")}
    )
    verdict = one(minimum(0.0, "roc_auc"), unknown, known)
    assert (verdict.status, verdict.observed) == ("failed", None)
    assert "no test images of 'dog'" in verdict.reason


def test_a_relative_metric_that_cannot_be_computed_fails_its_gate():
    p = evaluation_with(90).predictions
    lonely = with_labels(evaluation_with(90), np.zeros_like(p.labels))
    verdict = one(drop(1.0, "roc_auc"), lonely, lonely)
    assert (verdict.status, verdict.observed) == ("failed", None)
    assert "could not be compared" in verdict.reason


def with_labels(evaluation, labels):
    return replace(evaluation, predictions=replace(evaluation.predictions, labels=labels))


@pytest.mark.parametrize(
    ("production", "reason"),
    [
        (evaluation_with(50, prefix="other"), "other test images"),
        (evaluation_with(50, n_images=98), "other test images"),
        (evaluation_with(50, names=("dog", "cat")), "other classes"),
        (with_labels(evaluation_with(50), np.zeros(100, dtype=np.int64)), "other labels"),
    ],
)
def test_production_on_other_images_fails_even_a_better_candidate(production, reason):
    verdict = one(drop(0.5), evaluation_with(100), production)
    assert (verdict.status, verdict.observed) == ("failed", None)
    assert reason in verdict.reason


def test_the_order_of_the_images_does_not_count():
    candidate = evaluation_with(95)
    p = candidate.predictions
    backwards = replace(
        p,
        ids=p.ids[::-1],
        labels=p.labels[::-1],
        predicted=p.predicted[::-1],
        probabilities=p.probabilities[::-1],
    )
    verdict = one(drop(0.0), candidate, replace(candidate, predictions=backwards))
    assert (verdict.status, verdict.observed) == ("passed", 0.0)


def test_a_production_model_that_cannot_be_scored_fails_relative_gates_only():
    evidence = Evidence(evaluation_with(95), production_problem="other classes")
    absolute, relative = judge([minimum(0.0), drop(1.0)], evidence)
    assert absolute.status == "passed"
    assert relative.status == "failed"
    assert "other classes" in relative.reason
