"""The confident joint and what it prunes, counted by hand; pairs and outliers of odd datasets."""

import numpy as np
import pytest

from cv_factory.curation.confident_learning import estimate_label_noise, find_suspicious_labels
from cv_factory.curation.feature_space import normalize_rows, reduce_features
from cv_factory.curation.out_of_fold import predict_out_of_fold
from cv_factory.curation.outliers import find_outliers, measure_distances
from cv_factory.curation.similar_pairs import find_similar_pairs, shrink_images
from tests.support.datasets import dataset_of

#: Of six images; the third is confidently of class 1, whatever its label says.
_PROBABILITIES = np.array(
    [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.45, 0.55]]
)
_LABELS = np.array([0, 0, 0, 1, 1, 1])


def test_the_confident_joint_counts_by_thresholds() -> None:
    noise = estimate_label_noise(_PROBABILITIES, _LABELS)
    assert noise.thresholds == pytest.approx([0.6, (0.8 + 0.7 + 0.55) / 3])
    # Class 1: two are above 0.683, both right; calibrated to three labels.
    assert noise.joint.tolist() == [[2, 1], [0, 3]]
    assert noise.cutoffs.tolist() == [0.1, -1]
    assert find_suspicious_labels(_PROBABILITIES, _LABELS, noise).tolist() == [2]


def test_other_images_are_judged_by_the_same_noise() -> None:
    noise = estimate_label_noise(_PROBABILITIES, _LABELS)
    others = np.array([[0.95, 0.05], [0.62, 0.38], [0.55, 0.45], [0.05, 0.95]])
    suspicious = find_suspicious_labels(others, np.array([1, 1, 1, 1]), noise)
    # The third is not confidently of class 0.
    assert suspicious.tolist() == [0, 1]


def test_a_class_without_images_makes_nothing_doubtful() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    noise = estimate_label_noise(probabilities, np.array([0, 1]))
    assert noise.thresholds[2] == 1
    assert not len(find_suspicious_labels(probabilities, np.array([0, 1]), noise))


def test_a_leakage_group_is_predicted_by_models_without_any_image_of_it() -> None:
    # Pairs of equal features with wrong labels: fitted on the partner, the label would seem right.
    rng = np.random.default_rng(0)
    half = rng.normal(size=(40, 4)).astype(np.float32)
    half[:, 0] += np.where(np.arange(40) % 2, 3, -3)
    labels = np.tile(np.arange(40) % 2, 2)
    labels[[0, 40]] = 1
    groups = np.tile(np.arange(40), 2)
    features = np.concatenate([half, half])
    assessment = predict_out_of_fold(features, labels, groups, np.arange(80), 2)
    assert assessment.probabilities.sum(axis=1) == pytest.approx(1)
    assert (assessment.probabilities[[0, 40], 1] < 0.1).all()


def test_images_that_are_all_alike_are_paired_without_end() -> None:
    rng = np.random.default_rng(0)
    pictures = normalize_rows(np.tile(rng.normal(size=256), (300, 1)).astype(np.float32))
    unit = normalize_rows(np.tile(rng.normal(size=8), (300, 1)).astype(np.float32))
    parts = np.arange(300) % 2
    pairs = find_similar_pairs(unit, pictures, parts, np.arange(300))
    assert 150 <= len(pairs.first) <= 600
    assert (pairs.first < pairs.second).all()
    assert not len(find_similar_pairs(unit, pictures, parts, np.zeros(300, np.int64)).first)


def test_pictures_of_any_size_are_shrunken_and_those_of_one_color_are_like_nothing() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 9, 21, 1), dtype=np.uint8)
    images[1] = 40
    pictures = shrink_images(dataset_of(images))
    assert np.linalg.norm(pictures, axis=1) == pytest.approx([1, 0, 1])


def test_features_are_reduced_with_what_train_and_validation_hold() -> None:
    rng = np.random.default_rng(0)
    values = (1000 + rng.normal(size=(60, 12))).astype(np.float32)
    reduced = reduce_features(values, np.arange(50))
    assert reduced.shape == (60, 12)
    assert reduced[:50].mean(axis=0) == pytest.approx(0, abs=1e-4)
    assert reduced[:50].var(axis=0).sum() == pytest.approx(1, rel=1e-3)
    # Fewer dimensions than images: distances are kept, but for the scale.
    ratio = np.linalg.norm(reduced[0] - reduced[1]) / np.linalg.norm(values[0] - values[1])
    assert ratio == pytest.approx(1 / np.sqrt(values[:50].var(axis=0).sum()), rel=1e-3)


def test_equal_features_reduce_to_nothing_and_have_no_outliers() -> None:
    reduced = reduce_features(np.ones((12, 4), np.float32), np.arange(12))
    assert not np.abs(reduced).max(initial=0)
    distances = measure_distances(np.ones((12, 4), np.float32), np.arange(12), np.arange(12))
    assert not len(find_outliers(distances, np.arange(12)))
