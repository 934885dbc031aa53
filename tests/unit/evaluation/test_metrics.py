"""The metrics agree with scikit-learn, to rounding."""

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from cv_factory.evaluation import metric_functions as m


def draw(n_images: int, n_classes: int, seed: int, strength: float = 2.0, decimals: int = 16):
    """Random labels and probabilities; few decimals make ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_images)
    scores = np.exp(rng.normal(size=(n_images, n_classes)) + strength * np.eye(n_classes)[labels])
    probabilities = np.round(scores / scores.sum(axis=1, keepdims=True), decimals)
    probabilities[:, -1] = np.clip(1.0 - probabilities[:, :-1].sum(axis=1), 0.0, 1.0)
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def confusion_of(labels, probabilities):
    return m.confusion_matrix(labels, probabilities.argmax(axis=1), probabilities.shape[1])


@st.composite
def cases(draw_from):
    n_classes = draw_from(st.integers(2, 7))
    labels, probabilities = draw(
        draw_from(st.integers(n_classes, 120)),
        n_classes,
        draw_from(st.integers(0, 2**32 - 1)),
        draw_from(st.sampled_from([0.0, 2.0, 8.0])),
        draw_from(st.sampled_from([1, 2, 16])),
    )
    # Every class at least once, so that all metrics have a value.
    labels[:n_classes] = np.arange(n_classes)
    return labels, probabilities


@settings(max_examples=60, deadline=None)
@given(cases())
def test_agree_with_scikit_learn(case):
    labels, probabilities = case
    n_classes, predicted = probabilities.shape[1], probabilities.argmax(axis=1)
    classes = list(range(n_classes))
    confusion = confusion_of(labels, probabilities)
    np.testing.assert_array_equal(confusion, sk.confusion_matrix(labels, predicted, labels=classes))
    assert m.accuracy(confusion) == pytest.approx(sk.accuracy_score(labels, predicted), abs=1e-12)
    assert m.macro_f1(confusion) == pytest.approx(
        sk.f1_score(labels, predicted, average="macro", labels=classes, zero_division=0), abs=1e-12
    )
    scores = probabilities[:, 1] if n_classes == 2 else probabilities
    assert m.roc_auc(labels, probabilities) == pytest.approx(
        sk.roc_auc_score(labels, scores, multi_class="ovr", labels=classes), abs=1e-12
    )
    clipped = m.clipped_image_log_losses(labels, probabilities).mean()
    assert clipped == pytest.approx(sk.log_loss(labels, probabilities, labels=classes), abs=1e-12)
    assert m.log_loss(labels, probabilities) >= clipped - 1e-12
    for name, compute in (("precision", m.macro_precision), ("recall", m.macro_recall)):
        score = getattr(sk, f"{name}_score")
        expected_macro = score(labels, predicted, average="macro", labels=classes, zero_division=0)
        assert compute(confusion) == pytest.approx(expected_macro, abs=1e-12)
    one_hot = np.eye(n_classes)[labels]
    average = sk.average_precision_score(
        one_hot[:, 1] if n_classes == 2 else one_hot, scores, average="macro"
    )
    assert m.pr_auc(labels, probabilities) == pytest.approx(average, abs=1e-12)
    assert m.brier(labels, probabilities) == pytest.approx(
        sk.brier_score_loss(labels, scores, labels=classes), abs=1e-12
    )
    for k in range(2, n_classes):
        assert m.is_in_top_k(labels, probabilities, k).mean() == pytest.approx(
            sk.top_k_accuracy_score(labels, probabilities, k=k, labels=classes), abs=1e-12
        )
    expected = sk.precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=np.nan
    )
    for ours, theirs in zip(m.precision_recall_f1(confusion), expected[:3], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12, equal_nan=True)


def test_float32_probabilities_keep_their_ties():
    labels, probabilities = draw(500, 5, seed=3, strength=30.0)
    saturated = probabilities.astype(np.float32)
    assert (saturated == 1.0).sum() > 100
    assert m.roc_auc(labels, saturated) == pytest.approx(
        sk.roc_auc_score(labels, saturated, multi_class="ovr"), abs=1e-12
    )
    saturated[0] = np.eye(5, dtype=np.float32)[(labels[0] + 1) % 5]
    assert m.image_log_losses(labels, saturated)[0] == pytest.approx(-np.log(2.0**-149))


def test_the_log_loss_is_that_of_the_probabilities_as_they_are():
    probabilities = np.array([[1.0, 1e-38], [1e-38, 1.0], [0.25, 0.75]], dtype=np.float32)
    labels = np.array([1, 1, 0])
    losses = m.image_log_losses(labels, probabilities)
    np.testing.assert_array_equal(
        losses, -np.log(probabilities[np.arange(3), labels].astype(np.float64))
    )
    assert losses[1] == 0.0
    assert not np.signbit(losses[1])
    assert m.clipped_image_log_losses(labels, probabilities)[0] < 16 < 87 < losses[0]


def test_what_needs_every_class_says_which_is_missing():
    labels = np.array([0, 2, 2, 0])
    probabilities = np.full((4, 4), 0.25)
    for compute in (
        lambda: m.roc_auc(labels, probabilities),
        lambda: m.macro_f1(confusion_of(labels, probabilities)),
    ):
        with pytest.raises(m.MissingClassError) as caught:
            compute()
        assert caught.value.classes == (1, 3)


def test_undefined_ratios_are_nan_and_zero_is_zero():
    # Class 1 has images and is never predicted; class 2 is neither there nor predicted.
    precision, recall, f1 = m.precision_recall_f1(np.array([[3, 0, 0], [2, 0, 0], [0, 0, 0]]))
    np.testing.assert_array_equal(precision, [0.6, np.nan, np.nan])
    np.testing.assert_array_equal(recall, [1.0, 0.0, np.nan])
    np.testing.assert_array_equal(f1, [0.75, 0.0, np.nan])


def test_the_calibration_error_is_guo_s_definition():
    labels, probabilities = draw(400, 4, seed=2)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for low in np.arange(10) / 10:
        of_bin = (confidence > low) & (confidence <= low + 0.1)
        if of_bin.any():
            gap = abs(confidence[of_bin].mean() - right[of_bin].mean())
            expected += of_bin.mean() * gap
    assert m.expected_calibration_error(labels, probabilities, 10) == pytest.approx(expected)


def test_a_top_k_of_all_classes_is_no_metric():
    labels, probabilities = draw(20, 3, seed=0)
    with pytest.raises(m.UndefinedMetricError, match="all there is"):
        m.is_in_top_k(labels, probabilities, 3)
