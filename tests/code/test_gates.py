"""Gates: at the bound, around it, and where there is nothing to compare."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cv_factory.config import EvaluateConfig, GateConfig
from cv_factory.evaluation.evaluation import Evaluation, Metric, evaluate
from cv_factory.evaluation.gates import all_passed, judge

NAMES = ("cat", "dog")


def evaluation_with(n_right: int, n_images: int = 100, names=NAMES, prefix="image") -> Evaluation:
    """An evaluation in which the first so many images are right."""
    labels = np.arange(n_images) % 2
    predicted = np.where(np.arange(n_images) < n_right, labels, 1 - labels)
    probabilities = np.where(np.eye(2)[predicted] == 1, 0.8, 0.2)
    ids = [f"{prefix}-{i}" for i in range(n_images)]
    config = EvaluateConfig(bootstrap_samples=100)
    return evaluate(probabilities, labels, ids, names, f"{n_right:064d}", config)


def minimum(bound, metric="accuracy"):
    return GateConfig(metric=metric, min=bound)


def drop(bound, metric="accuracy"):
    return GateConfig(metric=metric, max_drop_vs_production=bound)


@pytest.mark.parametrize(("n_right", "status"), [(94, "failed"), (95, "passed"), (96, "passed")])
def test_absolute_gate(n_right, status):
    (verdict,) = judge([minimum(0.95)], evaluation_with(n_right), None)
    assert verdict.status == status
    assert (verdict.metric, verdict.bound) == ("accuracy", 0.95)
    assert verdict.observed == n_right / 100
    assert verdict.gate == "accuracy at least 0.95"
    assert f"{n_right / 100:.4f}" in verdict.reason


@pytest.mark.parametrize(
    ("n_right", "status"), [(100, "passed"), (97, "passed"), (96, "passed"), (95, "failed")]
)
def test_relative_gate(n_right, status):
    # 0.97 - 0.96 is 0.010000000000000009 in floating point, and at the bound all the same.
    assert 0.97 - 0.96 > 0.01
    (verdict,) = judge([drop(0.01)], evaluation_with(n_right), evaluation_with(97))
    assert verdict.status == status
    assert verdict.observed == pytest.approx((97 - n_right) / 100)
    assert verdict.gate == "accuracy at most 0.01 below production"


@given(n_images=st.integers(2, 5000), right=st.integers(0, 5000), lost=st.integers(0, 5000))
def test_exactly_at_the_bound_passes_and_one_image_less_fails(n_images, right, lost):
    right, lost = right % (n_images + 1), lost % (n_images + 1)
    theirs, ours = max(right, lost) / n_images, (max(right, lost) - lost) / n_images
    base = evaluation_with(1, 2)

    def having(accuracy):
        reason = "not needed here"
        return replace(base, metrics={"accuracy": Metric(accuracy, reason=reason)})

    gates = [minimum(ours), drop(lost / n_images)]
    assert all_passed(judge(gates, having(ours), having(theirs)))
    worse = ours - 1 / n_images
    assert [v.status for v in judge(gates, having(worse), having(theirs))] == ["failed"] * 2


def test_without_production_a_relative_gate_does_not_block_and_an_absolute_one_does():
    relative, absolute = judge([drop(0.0), minimum(0.99)], evaluation_with(50), None)
    assert (relative.status, relative.observed) == ("not_applicable", None)
    assert absolute.status == "failed"
    assert all_passed([relative])
    assert not all_passed([relative, absolute])


def test_no_gates_is_no_objection():
    assert judge([], evaluation_with(1), None) == ()
    assert all_passed(())


def test_a_metric_that_cannot_be_computed_fails_its_gates():
    known = evaluation_with(90)
    unknown = replace(
        known, metrics={**known.metrics, "roc_auc": Metric(None, reason="no test images of 'dog'")}
    )
    gates = [minimum(0.0, "roc_auc"), drop(1.0, "roc_auc")]
    for verdict in judge(gates, unknown, known):
        assert verdict.status == "failed"
        assert verdict.observed is None
        assert "no test images of 'dog'" in verdict.reason
    verdict = judge(gates, known, unknown)[1]
    assert (verdict.status, verdict.observed) == ("failed", None)
    assert verdict.reason.startswith("production: ")


def test_a_metric_that_an_evaluation_lacks_fails_its_gate():
    (verdict,) = judge([minimum(0.0)], replace(evaluation_with(90), metrics={}), None)
    assert (verdict.status, verdict.reason) == ("failed", "the evaluation has no accuracy")


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
    (verdict,) = judge([drop(0.5)], evaluation_with(100), production)
    assert (verdict.status, verdict.observed) == ("failed", None)
    assert reason in verdict.reason


def test_the_order_of_the_images_does_not_count():
    candidate = evaluation_with(95)
    p = candidate.predictions
    backwards = replace(p, ids=p.ids[::-1], labels=p.labels[::-1])
    (verdict,) = judge([drop(0.0)], candidate, replace(candidate, predictions=backwards))
    assert verdict.status == "passed"


def test_a_production_model_that_cannot_be_scored_fails_relative_gates_only() -> None:
    gates = [
        GateConfig(metric="accuracy", min=0.0),
        GateConfig(metric="accuracy", max_drop_vs_production=1.0),
    ]
    absolute, relative = judge(gates, evaluation_with(95), None, production_problem="other classes")
    assert absolute.status == "passed"
    assert relative.status == "failed"
    assert "other classes" in relative.reason
