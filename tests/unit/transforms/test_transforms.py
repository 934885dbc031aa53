"""Normalization and PCA against their textbook definitions, and their artifact."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cv_factory.config.data import DataConfig
from cv_factory.config.transform import PatchPCAConfig, PCAConfig, TransformConfig
from cv_factory.data.ingest import ingest
from cv_factory.errors import ArtifactError, TrainingError
from cv_factory.transforms import moments
from cv_factory.transforms.eigen import _block_krylov, leading_eigenvectors
from cv_factory.transforms.fitted import FittedTransform, fit_transform
from cv_factory.transforms.moments import ByteMoments, FloatMoments
from cv_factory.transforms.normalize import fit_normalization, normalize
from cv_factory.transforms.patches import fit_patches
from cv_factory.transforms.pca import fit_pca, pool_for, project


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(6, 10 * 10 * 3))
    mixed = rng.normal(size=(500, 6)) @ base + 0.2 * rng.normal(size=(500, 300))
    scaled = (mixed - mixed.min()) / (mixed.max() - mixed.min()) * 255
    images: np.ndarray = scaled.reshape(500, 10, 10, 3).astype(np.uint8)
    return images


def in_batches(images: np.ndarray, size: int = 64) -> list[np.ndarray]:
    return [images[i : i + size] for i in range(0, len(images), size)]


def test_normalization_is_mean_and_standard_deviation_of_each_channel(images: np.ndarray) -> None:
    fitted = fit_normalization(in_batches(images))
    scaled = images.reshape(-1, 3) / 255.0
    np.testing.assert_allclose(fitted.mean, scaled.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(fitted.std, scaled.std(axis=0), rtol=1e-5)
    normalized = normalize(images, fitted)
    assert normalized.shape == (500, 3, 10, 10)
    np.testing.assert_allclose(normalized.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(normalized.std(axis=(0, 2, 3)), 1, atol=1e-4)


def test_a_constant_channel_stays_finite() -> None:
    fitted = fit_normalization([np.full((3, 4, 4, 1), 7, np.uint8)])
    assert np.isfinite(normalize(np.zeros((1, 4, 4, 1), np.uint8), fitted)).all()


def test_pca_agrees_with_scikit_learn(images: np.ndarray) -> None:
    from sklearn.decomposition import PCA as Reference

    flat = images.reshape(500, -1).astype(np.float64) / 255
    reference = Reference(n_components=5, svd_solver="full").fit(flat)
    pca = fit_pca(in_batches(images), 5, (10, 10, 3))
    np.testing.assert_allclose(pca.explained_variance, reference.explained_variance_, rtol=1e-6)
    np.testing.assert_allclose(
        pca.explained_variance_ratio, reference.explained_variance_ratio_, rtol=1e-6
    )
    cosines = np.abs((pca.components * reference.components_).sum(axis=1))
    np.testing.assert_allclose(cosines, 1, atol=1e-5)
    expected = reference.transform(flat[:20]) * np.sign(
        (pca.components * reference.components_).sum(axis=1)
    )
    np.testing.assert_allclose(project(images[:20], pca), expected, atol=1e-4)


def test_pca_does_not_depend_on_how_images_are_batched(images: np.ndarray) -> None:
    whole, parts = (fit_pca(in_batches(images, n), 5, (10, 10, 3)) for n in (500, 77))
    np.testing.assert_allclose(whole.components, parts.components, atol=1e-5)


def test_the_largest_entry_of_each_component_is_positive(images: np.ndarray) -> None:
    pca = fit_pca(in_batches(images), 5, (10, 10, 3))
    largest = np.abs(pca.components).argmax(axis=1)
    assert (pca.components[np.arange(5), largest] > 0).all()


def test_large_images_are_pooled_before_they_are_projected() -> None:
    assert pool_for((32, 32, 3)) == 1
    assert pool_for((64, 64, 3)) == 2
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 65, 67, 3), dtype=np.uint8)
    pca = fit_pca([images], 4, (65, 67, 3))
    assert pca.pool == 3
    assert pca.components.shape == (4, 21 * 22 * 3)
    assert project(images, pca).shape == (40, 4)


def test_more_components_than_images_name_the_setting() -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 1), dtype=np.uint8)
    with pytest.raises(TrainingError, match=r"transform\.pca\.n_components is 8, but 8 training"):
        fit_pca([images], 8, (6, 6, 1))


@pytest.mark.parametrize(("n_images", "side", "expected"), [(8, 6, 7), (80, 4, 16), (80, 6, 32)])
def test_components_that_are_not_configured_follow_the_images(
    n_images: int, side: int, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    shape = (side, side, 1)
    images = np.random.default_rng(0).integers(0, 256, (n_images, *shape), dtype=np.uint8)
    with caplog.at_level("INFO"):
        pca = fit_pca([images], PCAConfig().n_components, shape)
    assert len(pca.components) == expected
    assert (f"PCA: {expected} components, since" in caplog.text) == (expected < 32)


def test_a_fitted_transform_is_read_back_and_a_changed_one_refused(tmp_path: Path) -> None:
    dataset = ingest(DataConfig(limit=300))
    config = TransformConfig(pca=PCAConfig(n_components=8))
    fitted = fit_transform(dataset, np.arange(200), config)
    fitted.save(tmp_path)
    loaded = FittedTransform.load(tmp_path)
    assert loaded.fingerprint == fitted.fingerprint
    np.testing.assert_array_equal(loaded.pca.components, fitted.pca.components)
    (tmp_path / "tensors.safetensors").write_bytes(b"\x80\x04not tensors")
    with pytest.raises(ArtifactError, match=r"tensors\.safetensors"):
        FittedTransform.load(tmp_path)


def test_only_the_training_images_are_looked_at() -> None:
    dataset = ingest(DataConfig(limit=300))
    config = TransformConfig(pca=PCAConfig(n_components=8))
    changed = np.array(dataset.images)
    changed[200:] = 255
    other = type(dataset)(changed, dataset.manifest, dataset.class_names, "changed")
    train = np.arange(200)
    first, second = (fit_transform(d, train, config) for d in (dataset, other))
    assert first.fingerprint == second.fingerprint


def test_the_standardized_features_have_unit_variance() -> None:
    dataset = ingest(DataConfig(limit=300))
    config = TransformConfig(pca=PCAConfig(n_components=8))
    fitted = fit_transform(dataset, np.arange(200), config)
    features = fitted.model_features(np.asarray(dataset.images[:200]))
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(features.std(axis=0, ddof=1), 1, rtol=1e-4)


def test_leading_eigenvectors_of_a_large_matrix_agree_with_lapack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    spectrum = np.concatenate([2.0 ** -np.arange(40), np.full(1160, 1e-6)])
    basis = np.linalg.qr(rng.normal(size=(1200, 1200)))[0]
    covariance = (basis * spectrum) @ basis.T
    values, vectors = leading_eigenvectors(covariance, 16)
    np.testing.assert_allclose(values, spectrum[:16], rtol=1e-10)
    np.testing.assert_allclose(np.abs((vectors * basis[:, :16].T).sum(axis=1)), 1, atol=1e-6)
    monkeypatch.setattr("cv_factory.transforms.eigen.fitting_threads", lambda: 3)
    assert np.array_equal(leading_eigenvectors(covariance, 16)[1], vectors), "on any processor"


def test_a_flat_spectrum_is_left_to_lapack() -> None:
    noise = np.random.default_rng(0).normal(size=(1200, 3000))
    covariance = noise @ noise.T / 3000
    assert _block_krylov(covariance, 16) is None, "converges too slowly"
    expected = np.linalg.eigvalsh(covariance)[::-1][:16]
    np.testing.assert_allclose(leading_eigenvectors(covariance, 16)[0], expected, rtol=1e-10)


def test_the_covariance_is_the_same_in_any_order_and_by_any_product(images: np.ndarray) -> None:
    rows = images.reshape(len(images), -1)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for kind in (ByteMoments(300), ByteMoments(300), FloatMoments(300, lambda r: r.T @ r)):
        for batch in in_batches(rows if found else rows[::-1], 77):
            kind.add(batch)
        found.append(kind.mean_and_covariance())
    for mean, covariance in found[1:]:
        np.testing.assert_array_equal(mean, found[0][0])
        np.testing.assert_array_equal(covariance, found[0][1])
    exact = np.cov(rows.astype(np.float64) / 255, rowvar=False)
    np.testing.assert_allclose(found[0][1], exact, rtol=1e-9, atol=1e-12)


def test_products_of_unsigned_bytes_serve_where_those_of_signed_ones_saturate(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fit_pca([images], 5, (10, 10, 3))
    matmul = moments._matmul_integer

    def without_vnni(right: np.dtype) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        product = matmul(right)
        signed = right == np.int8
        return lambda a, b: np.minimum(product(a, b), 32767) - 1 if signed else product(a, b)

    monkeypatch.setattr(moments, "_matmul_integer", without_vnni)
    found = fit_pca([images], 5, (10, 10, 3))
    np.testing.assert_array_equal(found.explained_variance, expected.explained_variance)


@pytest.mark.parametrize(
    ("patches", "message"),
    [
        ({"size": 8}, r"transform\.patches\.size is 8 pixels, but images are only 6x6"),
        ({"size": 2, "n_components": 5}, r"transform\.patches\.n_components is 5, .* 4 values"),
    ],
)
def test_patches_that_do_not_fit_are_refused(patches: dict[str, int], message: str) -> None:
    config = PatchPCAConfig.model_validate(patches)
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 1), dtype=np.uint8)
    with pytest.raises(TrainingError, match=message):
        fit_patches([images], fit_normalization([images]), config)


@pytest.mark.slow
def test_a_map_of_the_images_is_deterministic_and_read_back(tmp_path: Path) -> None:
    dataset = ingest(DataConfig(limit=120))
    config = TransformConfig.model_validate({"pca": {"n_components": 8}, "umap": {"n_images": 60}})
    fitted = fit_transform(dataset, np.arange(100), config)
    assert fitted.embedding is not None
    assert fitted.embedding.positions.shape == (60, 2)
    fitted.save(tmp_path)
    assert FittedTransform.load(tmp_path).fingerprint == fitted.fingerprint
    assert fit_transform(dataset, np.arange(100), config).fingerprint == fitted.fingerprint
