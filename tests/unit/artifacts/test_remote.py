"""Datasets in object stores: sent and fetched in chunks, and loaded only when they are whole."""

import json
import os
import tempfile
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cv_factory.artifacts.remote import download_artifact, upload_artifact
from cv_factory.artifacts.transfer import fetch_file
from cv_factory.config.serving import ServingConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.errors import ArtifactError
from cv_factory.monitoring.build_reference import build_reference
from cv_factory.serving.bundle import Bundle
from tests.support.datasets import dataset_of
from tests.support.fault_proxy import FaultProxy
from tests.support.predictors import digits_predictor
from tests.support.s3_server import BUCKET, S3Server

KIND = "dataset"


@pytest.fixture
def store() -> MemoryFileSystem:
    filesystem = MemoryFileSystem(skip_instance_cache=True)
    filesystem.store = {}
    return filesystem


def saved(folder: Path) -> Path:
    folder.mkdir()
    dataset_of(np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), np.uint8)).save(folder)
    return folder


def loaded(store: Any, uri: str, folder: Path) -> ImageDataset:
    folder.mkdir()
    download_artifact(store, uri, KIND, folder)
    return ImageDataset.load(folder)


def test_what_was_sent_comes_back(store: MemoryFileSystem, tmp_path: Path) -> None:
    upload_artifact(saved(tmp_path / "a"), KIND, store, "/bucket/7")
    store.pipe("/bucket/7/samples.png", b"a picture that the dashboard shows")
    loaded(store, "/bucket/7", tmp_path / "b")
    for name in ("images.npy", "manifest.parquet", "dataset.json"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
    assert not (tmp_path / "b" / "samples.png").exists()


def test_the_header_is_sent_last(
    store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    present: list[bool] = []
    put = store.put_file

    def observed(source: str, target: str, **options: object) -> None:
        put(source, target, **options)
        present.append(store.exists("/bucket/7/dataset.json"))

    monkeypatch.setattr(store, "put_file", observed)
    upload_artifact(saved(tmp_path / "a"), KIND, store, "/bucket/7")
    assert present == [False, False, True]


def cut(content: bytes) -> bytes:
    return content[:-9]


def flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def climbs(content: bytes) -> bytes:
    header = json.loads(content)
    header["files"]["../x"] = header["files"].pop("images.npy")
    return json.dumps(header).encode()


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("images.npy", cut, r"/bucket/7/images\.npy has \d+ bytes, its header says"),
        ("images.npy", flip, r"images\.npy does not match its checksum .* from /bucket/7\."),
        ("manifest.parquet", flip, r"manifest\.parquet does not match its checksum"),
        ("dataset.json", cut, "is not JSON"),
        ("dataset.json", climbs, "no plain file name"),
        ("images.npy", None, r"/bucket/7/images\.npy cannot be read \(there is no such file\)"),
        ("dataset.json", None, r"/bucket/7/dataset\.json does not exist: the artifact is incompl"),
    ],
)
def test_what_is_not_whole_is_not_loaded(
    store: MemoryFileSystem, tmp_path: Path, name: str, damage: Any, message: str
) -> None:
    upload_artifact(saved(tmp_path / "a"), KIND, store, "/bucket/7")
    if damage is None:
        store.rm(f"/bucket/7/{name}")
    else:
        store.pipe(f"/bucket/7/{name}", damage(store.cat_file(f"/bucket/7/{name}")))
    with pytest.raises(ArtifactError, match=message):
        loaded(store, "/bucket/7", tmp_path / "b")


@pytest.fixture
def store_in_s3(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """ZenML's own S3 artifact store; temporary files lie in ``tmp``."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    from zenml.enums import StackComponentType
    from zenml.integrations.s3.artifact_stores.s3_artifact_store import S3ArtifactStore
    from zenml.integrations.s3.flavors import S3ArtifactStoreConfig

    now = datetime.now(UTC)
    return S3ArtifactStore(
        name="bucket", id=uuid.uuid4(), config=S3ArtifactStoreConfig(path=f"s3://{BUCKET}"),
        flavor="s3", type=StackComponentType.ARTIFACT_STORE, user=uuid.uuid4(), created=now,
        updated=now,
    )  # fmt: skip


@pytest.fixture
def in_s3(store_in_s3: Any) -> Any:
    """A materializer of datasets over that store."""
    from materializers.dataset import ImageDatasetMaterializer

    return ImageDatasetMaterializer(f"s3://{BUCKET}/ingest/dataset/7", artifact_store=store_in_s3)


@pytest.mark.engines
@pytest.mark.parametrize("has_reference", [False, True])
def test_a_bundle_in_a_bucket_comes_back_whole_or_not_at_all(
    s3: S3Server, store_in_s3: Any, tmp_path: Path, has_reference: bool
) -> None:
    from materializers.bundle import BundleMaterializer

    predictor, dataset, split = digits_predictor("logistic_regression")
    before = set((tmp_path / "tmp").iterdir())
    made = "2026-01-01T00:00:00+00:00"
    bundle = Bundle(predictor, ServingConfig(), "digits", "7", made, card_html="<h1>Digits</h1>")
    if has_reference:
        bundle = replace(bundle, reference=build_reference(predictor, dataset, split, 0, 0))
    folder = f"build_bundle/bundle/{has_reference}"
    place = f"s3://{BUCKET}/{folder}"
    BundleMaterializer(place, artifact_store=store_in_s3).save(bundle)
    assert set((tmp_path / "tmp").iterdir()) == before
    materializer = BundleMaterializer(place, artifact_store=store_in_s3)
    loaded = cast(Bundle, materializer.load(Bundle))
    assert (loaded.card_html, loaded.serving) == (bundle.card_html, bundle.serving)
    assert loaded.predictor.fingerprint == predictor.fingerprint
    answered = loaded.predictor.predict(predictor.golden.images)
    np.testing.assert_array_equal(answered.probabilities, predictor.golden.probabilities)

    assert (loaded.reference is not None) == has_reference

    names = ["predictor/predictor.onnx", "predictor/contract.json", "serving.json"]
    for name in [*names, *(["reference/test.npz"] if has_reference else [])]:
        key = f"{folder}/{name}"
        content = s3.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()
        s3.client().put_object(Bucket=BUCKET, Key=key, Body=flip(content))
        with pytest.raises(ArtifactError, match=name.rpartition("/")[2]):
            materializer.load(Bundle)
        s3.client().put_object(Bucket=BUCKET, Key=key, Body=content)
    assert cast(Bundle, materializer.load(Bundle)).version == "7"
    assert set((tmp_path / "tmp").iterdir()) == before


@pytest.mark.engines
def test_a_dataset_in_a_bucket_is_mapped_and_leaves_no_files(
    s3: S3Server, in_s3: Any, tmp_path: Path
) -> None:
    # Above 16 MiB an object is sent in parts.
    pixels = np.random.default_rng(0).integers(0, 256, (9000, 32, 32, 3), np.uint8)
    original = dataset_of(pixels)
    in_s3.save(original)
    listed = s3.client().list_objects_v2(Bucket=BUCKET)["Contents"]
    names = {entry["Key"].rpartition("/")[2]: entry for entry in listed}
    assert {"images.npy", "manifest.parquet", "dataset.json"} <= set(names)
    assert names["images.npy"]["ETag"].endswith('-4"'), "four parts"

    dataset = in_s3.load(ImageDataset)
    assert isinstance(dataset.images.base, np.memmap)
    assert list((tmp_path / "tmp").iterdir()) == []
    np.testing.assert_array_equal(dataset.images, pixels)
    assert dataset.content_hash == original.content_hash

    (key,) = [entry["Key"] for entry in listed if entry["Key"].endswith("images.npy")]
    content = s3.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()
    s3.client().put_object(Bucket=BUCKET, Key=key, Body=flip(content))
    with pytest.raises(ArtifactError, match="does not match its checksum"):
        in_s3.load(ImageDataset)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.engines
def test_an_upload_that_breaks_off_is_an_error_and_no_artifact(
    s3: S3Server, in_s3: Any, tmp_path: Path
) -> None:
    filesystem = in_s3.artifact_store.filesystem
    filesystem.exists(BUCKET)  # connects
    sent = []

    def die(**_: object) -> None:
        sent.append(1)
        if len(sent) == 3:
            s3.kill()

    filesystem.s3.meta.events.register("before-call.s3.UploadPart", die)
    with pytest.raises(ArtifactError, match=r"s3://images/ingest/dataset/7/images\.npy cannot be"):
        in_s3.save(dataset_of(np.zeros((20_000, 32, 32, 3), np.uint8)))
    assert len(sent) >= 3
    assert list((tmp_path / "tmp").iterdir()) == []
    with pytest.raises(ArtifactError, match="s3://images/ingest/dataset/7"):
        in_s3.load(ImageDataset)


@pytest.mark.engines
def test_failed_requests_are_retried(s3: S3Server, tmp_path: Path) -> None:
    import s3fs

    with FaultProxy(s3.url, share=0.4, seed=3) as proxy:
        filesystem = s3fs.S3FileSystem(endpoint_url=proxy.url, skip_instance_cache=True)
        upload_artifact(saved(tmp_path / "a"), KIND, filesystem, f"{BUCKET}/7")
        assert sum(proxy.faults.values()) > 0
        dataset = loaded(filesystem, f"{BUCKET}/7", tmp_path / "b")
    assert dataset.fingerprint == ImageDataset.load(tmp_path / "a").fingerprint


def test_chunks_that_are_written_in_parts_are_whole(
    store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(range(256)) * 10
    store.pipe_file("/images", content)
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, part, at: write(file, part[:1000], at))
    fetch_file(store, "/images", tmp_path / "images")
    assert (tmp_path / "images").read_bytes() == content
