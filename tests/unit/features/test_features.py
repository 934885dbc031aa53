"""A backbone's graph equals PyTorch's network, and features are those of the predictor's input."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import cv_factory.features.compute as compute
import cv_factory.features.export as export
from cv_factory.artifacts.onnx_session import open_session
from cv_factory.data.dataset import ImageDataset
from cv_factory.errors import ConfigError, ExportError
from cv_factory.features.backbone import Backbone
from cv_factory.features.backbones import PretrainedBackbone
from cv_factory.features.graph import features_graph, input_graph
from cv_factory.features.image_features import ImageFeatures
from tests.support.datasets import dataset_of
from tests.support.tiny_backbone import load_tiny_backbone

SIZE = 16


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "load_backbone", load_tiny_backbone)
        return export.export_backbone("tiny", SIZE)


def make_dataset(shape: tuple[int, ...]) -> ImageDataset:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return dataset_of(images)


def test_features_are_those_that_pytorch_computes(backbone: Backbone) -> None:
    dataset = make_dataset((19, SIZE, SIZE, 3))
    features = compute.compute_features(dataset, backbone, horizontal_flip=True)
    pretrained = load_tiny_backbone()
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (pretrained.mean, pretrained.std))
    for images, values in (
        (dataset.images, features.values),
        (dataset.images[:, :, ::-1], features.mirrored),
    ):
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
        with torch.inference_mode():
            expected = pretrained.network((pixels - mean) / std).numpy()
        np.testing.assert_allclose(values, expected, atol=1e-5)
    assert (features.n_features, len(features)) == (4, 19)
    assert compute.compute_features(dataset, backbone, horizontal_flip=False).mirrored is None


def test_features_depend_on_neither_threads_nor_batches(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset((21, 20, 12, 1))
    values = compute.compute_features(dataset, backbone, horizontal_flip=False).values
    for threads, batch in ((1, 5), (3, 2), (2, 64)):
        monkeypatch.setattr(compute, "_BATCH", batch)
        monkeypatch.setattr(compute, "fitting_threads", lambda n=threads: n)
        again = compute.compute_features(dataset, backbone, horizontal_flip=False).values
        np.testing.assert_array_equal(again, values)


def test_few_batches_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "fitting_threads", lambda: 2)
    lock, started, most = threading.Lock(), 0, 0

    def run(start: int) -> npt.NDArray[np.float32]:
        nonlocal started
        with lock:
            started += 1
        return np.full((compute._BATCH, 1), start, np.float32)

    for row, _ in enumerate(compute._rows(run, 100 * compute._BATCH)):
        with lock:
            most = max(most, started - row // compute._BATCH)
    assert started == 100
    assert most <= 2 * 2 + 1


def test_features_load_as_they_were_stored(backbone: Backbone, tmp_path: Path) -> None:
    features = compute.compute_features(
        make_dataset((5, 16, 16, 3)), backbone, horizontal_flip=True
    )
    features.save(tmp_path)
    loaded = ImageFeatures.load(tmp_path)
    assert features.mirrored is not None
    assert loaded.mirrored is not None
    np.testing.assert_array_equal(loaded.values, features.values)
    np.testing.assert_array_equal(loaded.mirrored, features.mirrored)
    assert loaded.fingerprint == features.fingerprint
    assert loaded.backbone == backbone


@pytest.mark.parametrize("shape", [(32, 32, 3), (25, 37, 3), (7, 40, 3), (10, 12, 3), (24, 20, 1)])
def test_images_are_resized_as_pillow_resizes(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    session = open_session(input_graph(shape, SIZE).SerializeToString())
    (pixels,) = session.run(["pixels"], {"images": image[None]})
    picture = Image.fromarray(image[..., 0] if shape[2] == 1 else image).convert("RGB")
    expected = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)
    # Pillow rounds to whole numbers after each of both directions.
    np.testing.assert_allclose(pixels[0].transpose(1, 2, 0), expected, atol=1.01)


def test_images_of_the_right_size_are_not_touched() -> None:
    graph = input_graph((SIZE, SIZE, 3), SIZE)
    assert [node.op_type for node in graph.graph.node] == ["Transpose", "Cast"]


def test_other_channels_are_refused(backbone: Backbone) -> None:
    with pytest.raises(ExportError, match=r"these have 4 channels: set data\.channels"):
        features_graph((8, 8, 4), backbone)


def test_the_same_backbone_is_exported_to_the_same_bytes(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "load_backbone", load_tiny_backbone)
    assert export.export_backbone("tiny", SIZE).fingerprint == backbone.fingerprint


def scale(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return values * np.float32(1.01)


def spoil_one_photo(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.where(np.arange(len(values))[:, None] == 3, np.float32(np.nan), values)


@pytest.mark.parametrize("spoil", [scale, spoil_one_photo, lambda values: values[:, :2]])
def test_an_export_that_differs_from_pytorch_is_refused(
    backbone: Backbone, spoil: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
) -> None:
    photos = export.load_photos(SIZE)
    session = open_session(backbone.graph)
    expected = session.run(None, {"pixels": photos})[0]
    export.check_parity(backbone.graph, photos, expected, "tiny")
    with pytest.raises(ExportError, match=r"tiny differs from PyTorch's by .* not stored"):
        export.check_parity(backbone.graph, photos, spoil(expected), "tiny")


def test_a_graph_of_another_network_is_not_stored(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_other(_name: str, _size: int) -> PretrainedBackbone:
        return replace(load_tiny_backbone(), mean=(121.0, 110.0, 100.0))

    monkeypatch.setattr(export, "load_backbone", load_other)
    monkeypatch.setattr(export, "_to_onnx", lambda _module, _photos: backbone.graph)
    with pytest.raises(ExportError, match="differs from PyTorch's"):
        export.export_backbone("tiny", SIZE)


def test_an_input_too_small_for_the_backbone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "load_backbone", load_tiny_backbone)
    with pytest.raises(ConfigError, match=r"features\.input_size: 2 pixels a side do not suit"):
        export.export_backbone("tiny", 2)
