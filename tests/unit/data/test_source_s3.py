"""Images in a bucket of a real S3 server (SeaweedFS) over HTTP."""

from pathlib import Path

import numpy as np
import pytest

from cv_factory.config.data import DataConfig
from cv_factory.data.ingest import ingest, ingest_source
from cv_factory.data.sources import open_source
from cv_factory.errors import DataError
from tests.support.images import write_class_folders
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.engines


def of_bucket(source: str, path: str, **settings: object) -> DataConfig:
    return DataConfig.model_validate({"source": source, "path": path, **settings})


def test_a_bucket_gives_the_dataset_that_the_folder_gives(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_class_folders(tmp_path / "pets", per_class=15)
    (tmp_path / "pets" / "disc" / "empty.png").touch()
    files = [f for f in sorted((tmp_path / "pets").rglob("*")) if f.is_file()]
    names = [f.relative_to(tmp_path).as_posix() for f in files]
    client = s3.client()
    for file, name in zip(files, names, strict=True):
        client.put_object(Bucket="images", Key=name, Body=file.read_bytes())
    rows = [f"s3://images/{n},{n.split('/')[1]}" for n in names if "empty" not in n]
    table = "\n".join(["image_path,label", *rows]).encode()
    client.put_object(Bucket="images", Key="tables/t.csv", Body=table)

    local = ingest(of_bucket("folder", str(tmp_path / "pets"), max_unreadable_share=0.1))
    remote = ingest(of_bucket("folder", "s3://images/pets", max_unreadable_share=0.1))
    assert remote.fingerprint == local.fingerprint
    np.testing.assert_array_equal(remote.images, local.images)
    assert [(u.id, u.reason) for u in remote.unreadable] == [
        ("disc/empty.png", "the file is empty")
    ]
    allowed = {"allowed_schemes": ["s3"]}
    listed = ingest(of_bucket("manifest", "s3://images/tables/t.csv", manifest=allowed))
    assert listed.class_counts == local.class_counts

    before = open_source(of_bucket("folder", "s3://images/pets")).fingerprint()
    client.put_object(Bucket="images", Key=names[0], Body=files[1].read_bytes())
    assert open_source(of_bucket("folder", "s3://images/pets")).fingerprint() != before

    with pytest.raises(DataError, match="nothing does not exist"):
        open_source(of_bucket("folder", "s3://images/nothing"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(DataError, match="s3://images/pets"):
        open_source(
            of_bucket("folder", "s3://images/pets", storage_options={"skip_instance_cache": True})
        )


def test_a_server_that_dies_stops_the_ingestion_early(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("cv_factory.data.ingest._MIN_FAILURES_TO_ABORT", 20)
    monkeypatch.setattr("cv_factory.data.ingest._BATCH", 16)
    write_class_folders(tmp_path / "pets", per_class=100)
    client = s3.client()
    for file in (tmp_path / "pets").rglob("*.png"):
        name = file.relative_to(tmp_path).as_posix()
        client.put_object(Bucket="images", Key=name, Body=file.read_bytes())
    size = {"height": 12, "width": 12, "channels": 3}
    fresh = {"storage_options": {"skip_instance_cache": True}}
    config = of_bucket("folder", "s3://images/pets", max_unreadable_share=0.1, **size, **fresh)
    with open_source(config) as source:
        s3.kill()
        with pytest.raises(DataError, match="of 200 images could not be read so far") as caught:
            ingest_source(source, config)
    assert int(str(caught.value).split()[1]) < 100
    assert "s3://images/pets/disc/000.png" in str(caught.value)
