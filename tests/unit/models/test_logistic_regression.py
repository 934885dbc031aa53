"""Logistic regression: scikit-learn's solution, and a penalty chosen on training images."""

import numpy as np
import onnx
import pytest
from onnxruntime import InferenceSession
from sklearn.linear_model import LogisticRegression

from cv_factory.features.softmax_regression import SoftmaxRegressionProblem
from cv_factory.models import Examples, choose_settings, convert_classical, fit_classical
from cv_factory.models.logistic_regression import LogisticRegressionConfig
from cv_factory.models.mlp import MLPConfig


def make_examples(n_classes: int = 3, n: int = 90, n_features: int = 20) -> Examples:
    """Overlapping clouds, one a class, of features whose mean and scale differ."""
    rng = np.random.default_rng(0)
    labels = np.arange(n, dtype=np.int64) % n_classes
    centers = rng.normal(size=(n_classes, n_features))
    features = 3 + (centers[labels] + 2 * rng.normal(size=(n, n_features))) * np.linspace(
        0.1, 2, n_features
    )
    return Examples(features.astype(np.float32), labels, rng.uniform(0.2, 2, n))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("C", [0.01, 1.0])
def test_the_solution_is_that_of_scikit_learn(n_classes: int, C: float) -> None:
    examples = make_examples(n_classes)
    theirs = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(
        examples.features.astype(np.float64), examples.labels, sample_weight=examples.weights
    )
    ours = fit_classical(LogisticRegressionConfig(C=C), examples, seed=0)
    np.testing.assert_allclose(
        ours.predict_proba(examples.features),
        theirs.predict_proba(examples.features.astype(np.float64)),
        atol=1e-6,
    )


def test_the_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = make_examples(n=3000)
    problem = SoftmaxRegressionProblem(examples.features, examples.labels, 3)
    weights = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        weights.append(problem.fit(0.1, 100).weights.tobytes())
    assert weights[0] == weights[1]


def test_a_fit_from_another_solution_ends_at_the_same_one() -> None:
    examples = make_examples()
    problem = SoftmaxRegressionProblem(examples.features, examples.labels, 3)
    cold = problem.fit(0.1, 1000)
    warm = problem.fit(0.1, 1000, start=problem.fit(0.03, 1000))
    np.testing.assert_allclose(warm.weights, cold.weights, atol=1e-6)


def test_too_few_steps_are_named(caplog: pytest.LogCaptureFixture) -> None:
    fit_classical(LogisticRegressionConfig(C=100.0, max_iter=10), make_examples(), seed=0)
    assert "did not converge in 10 steps: raise model.max_iter" in caplog.text


def test_the_penalty_suits_the_noise() -> None:
    examples, groups = make_examples(), np.arange(90)
    chosen = choose_settings(LogisticRegressionConfig(), examples, groups)
    assert chosen.C is not None
    assert 1e-4 < chosen.C < 1.0
    rng = np.random.default_rng(1)
    pure_noise = Examples(examples.features, rng.permutation(examples.labels))
    without = choose_settings(LogisticRegressionConfig(), pure_noise, groups)
    assert without.C is not None
    assert without.C < chosen.C
    given = LogisticRegressionConfig(C=5.0)
    assert choose_settings(given, examples, groups) is given
    assert choose_settings(MLPConfig(), examples, groups) == MLPConfig()


def test_copies_of_an_image_do_not_judge_each_other() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(30, 40)).astype(np.float32)
    labels = rng.integers(0, 3, 30)
    labels[:3] = 0, 1, 2
    copies = Examples(np.repeat(images, 3, axis=0), np.repeat(labels, 3))
    apart = choose_settings(LogisticRegressionConfig(), copies, np.arange(90))
    together = choose_settings(LogisticRegressionConfig(), copies, np.repeat(np.arange(30), 3))
    assert apart.C is not None
    assert together.C is not None
    # Labels without meaning are learned by heart where copies are in other folds.
    assert together.C < apart.C


def test_the_graph_answers_as_the_model() -> None:
    examples = make_examples()
    config = LogisticRegressionConfig(C=0.1)
    model = fit_classical(config, examples, seed=0)
    graph = convert_classical(config, model, 20, {})
    onnx.checker.check_model(graph, full_check=True)
    session = InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {"features": examples.features})
    np.testing.assert_allclose(probabilities, model.predict_proba(examples.features), atol=1e-6)
