"""Everything of the stack ``aws`` on this machine: S3, our emulator, a ZenML and an MLflow server.

The S3 server, ZenML and MLflow are real; the emulator says of itself what it is not.
"""

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import boto3
import psutil

from cv_factory.processes.ports import LOOPBACK, is_port_taken
from tests.support.documentation import shell_commands
from tests.support.project import Completed, Project
from tests.support.s3_server import USER, WEED, S3Server, answers
from tests.support.waiting import wait_until

EMULATOR = Path(__file__).with_name("aws_emulator")
REGION = "eu-central-1"
#: Beside what docs/aws.md says: a training of seconds, with a checkpoint of every epoch, and a
#: gate that it passes.
SHORT = ("--set", "train.epochs=8", "--set", "train.checkpoint_seconds=0",
         "--set", "gates=[{metric: accuracy, min: 0.3}]", "--no-cache")  # fmt: skip
_GUARD = str(EMULATOR / "guarded.py")
#: Below those that the system gives to outgoing connections.
_PORTS = range(20_000, 32_000)
_NO_PROXY = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


#: Commands of docs/aws.md that tests have asked for so far.
asked_for: set[str] = set()


def page_commands() -> list[str]:
    """Return the commands of docs/aws.md, in order."""
    return shell_commands("docs/aws.md")


def documented(beginning: str) -> list[str]:
    """Return the arguments of the one command of docs/aws.md that begins so.

    Raises:
        AssertionError: There is none, or there are several.
    """
    (match,) = {line for line in page_commands() if line.startswith(beginning)}
    asked_for.add(match)
    return match.removeprefix(beginning).split()


@dataclass(frozen=True)
class Cloud:
    """The servers' addresses, and the variables by which programs find them.

    Attributes:
        folder: Holds the servers' files and logs.
        environment: Endpoints, credentials and region, as every AWS program reads them.
        s3: The S3 server.
        emulator_url: Address of the emulator.
        zenml_url: Address of the ZenML server.
        mlflow_url: Address of the MLflow server.
        bucket: Bucket that the template would make; it is on the S3 server.
    """

    folder: Path
    environment: dict[str, str]
    s3: S3Server
    emulator_url: str
    zenml_url: str
    mlflow_url: str
    bucket: str

    @property
    def engine_folder(self) -> Path:
        """Where a Docker engine is at hand for the emulator, if a test starts one."""
        return self.folder / "engine"

    @property
    def attempts(self) -> str:
        """What tried to reach another machine, a line each."""
        log = Path(self.environment["CV_FACTORY_TEST_ATTEMPTS"])
        return log.read_text() if log.exists() else ""

    @property
    def job_logs(self) -> dict[str, str]:
        """The output of every job that the emulator ran, by its name."""
        return {f.stem: f.read_text(errors="replace") for f in self.folder.glob("jobs/*.log")}

    @contextmanager
    def going_wrong(self, **controls: tuple[str, ...]) -> Iterator[None]:
        """Let the emulator do wrong for a while; see ``aws_emulator/controls.py``."""
        file = self.folder / "jobs" / "controls.json"
        file.write_text(json.dumps(controls))
        try:
            yield
        finally:
            file.unlink()

    def aws(self, service: str) -> Any:
        """Return a boto3 client of the emulator."""
        return boto3.client(
            service,
            endpoint_url=self.emulator_url,
            region_name=REGION,
            aws_access_key_id=USER[0],
            aws_secret_access_key=USER[1],
        )

    def deploy(self, root: Path) -> None:
        """Deploy the template as docs/aws.md says, with the address of this MLflow server."""
        words = documented("aws cloudformation deploy ")
        values = dict(zip(words[::2], words[1::2], strict=True))
        overridden = dict([values.pop("--parameter-overrides").split("=")])
        assert list(overridden) == ["MlflowUri"]
        self.aws("cloudformation").create_stack(
            StackName=values.pop("--stack-name"),
            TemplateBody=(root / values.pop("--template-file")).read_text(),
            Capabilities=[values.pop("--capabilities")],
            Parameters=[{"ParameterKey": "MlflowUri", "ParameterValue": self.mlflow_url}],
        )
        assert not values

    def objects(self, prefix: str = "") -> dict[str, int]:
        """Return the size of every object in the bucket, by its key."""
        pages = self.s3.client().get_paginator("list_objects_v2")
        match = pages.paginate(Bucket=self.bucket, Prefix=prefix)
        return {o["Key"]: o["Size"] for page in match for o in page.get("Contents", [])}

    def remove_bucket(self) -> None:
        """Remove the bucket with all that is in it."""
        client = self.s3.client()
        for key in self.objects():
            client.delete_object(Bucket=self.bucket, Key=key)
        client.delete_bucket(Bucket=self.bucket)

    def read(self, key: str) -> bytes:
        """Return an object's content."""
        body = self.s3.client().get_object(Bucket=self.bucket, Key=key)["Body"]
        content: bytes = body.read()
        return content


class CloudProject(Project):
    """A project whose commands find the cloud, and are kept to this machine."""

    def __init__(self, folder: Path, cloud: Cloud, api_key: str) -> None:
        """Copy the project and point it at the servers."""
        super().__init__(folder)
        # A refused proxy would hide attempts that the guard is to see.
        for name in _NO_PROXY:
            self.environment.pop(name, None)
        self.environment |= {
            **{k: v for k, v in cloud.environment.items() if k != "CV_FACTORY_TEST_PROJECT"},
            "ZENML_STORE_URL": cloud.zenml_url,
            "ZENML_STORE_API_KEY": api_key,
            "CV_FACTORY_MLFLOW_URI": cloud.mlflow_url,
            "CV_FACTORY_MLFLOW_USERNAME": "tester",
            "CV_FACTORY_MLFLOW_PASSWORD": "mlflow-password",
            "CV_FACTORY_SPOT": "true",
        }

    def command(self, command: list[str], **options: Any) -> Completed:
        """Run any command; one of Python's is kept to this machine."""
        if command[0] == sys.executable:
            command = [command[0], _GUARD, *command[1:]]
        return super().command(command, **options)

    def zenml(self, *arguments: str, **options: Any) -> Completed:
        """Run the ``zenml`` command with the arguments."""
        return self.warm(str(Path(sys.executable).with_name("zenml")), *arguments, **options)

    def warm(self, *arguments: str, **options: Any) -> Completed:
        """Run Python with third-party packages imported, kept to this machine."""
        return super().warm(_GUARD, *arguments, **options)


@contextmanager
def start_cloud(folder: Path, mark: str) -> Iterator[tuple[Cloud, str]]:
    """Start all servers, and yield the cloud with an API key of its ZenML server.

    Args:
        folder: An empty folder.
        mark: Value of the variable that tells processes of these tests.
    """
    emulator_port, zenml_port, mlflow_port = _find_ports(3)
    with ExitStack() as stack:
        for name in ("s3", "home", "jobs"):
            (folder / name).mkdir(parents=True)
        bucket = f"cv-factory-123456789012-{REGION}"
        s3 = S3Server(str(WEED), folder / "s3", bucket)
        stack.callback(s3.kill)
        cloud = Cloud(
            folder=folder,
            environment=_environment(folder, s3.url, f"http://127.0.0.1:{emulator_port}", mark),
            s3=s3,
            emulator_url=f"http://127.0.0.1:{emulator_port}",
            zenml_url=f"http://127.0.0.1:{zenml_port}",
            mlflow_url=f"http://127.0.0.1:{mlflow_port}",
            bucket=bucket,
        )
        jobs = str(folder / "jobs")
        stack.enter_context(_server(cloud, "emulator", str(EMULATOR), str(emulator_port), jobs))
        stack.enter_context(_zenml(cloud, zenml_port))
        stack.enter_context(_mlflow(cloud, mlflow_port))
        for address in (f"{cloud.emulator_url}/moto-api/", f"{cloud.mlflow_url}/health",
                        f"{cloud.zenml_url}/health"):  # fmt: skip
            wait_until(partial(answers, address), 120, address)
        yield cloud, _api_key(cloud.zenml_url)


def _find_ports(count: int) -> list[int]:
    """Return free ports that no outgoing connection takes before the servers listen on them."""
    candidates = random.sample(_PORTS, len(_PORTS))
    return list(islice((p for p in candidates if not is_port_taken(LOOPBACK, p)), count))


def _environment(folder: Path, s3_url: str, emulator_url: str, mark: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": USER[0],
        "AWS_SECRET_ACCESS_KEY": USER[1],
        "AWS_ENDPOINT_URL": emulator_url,
        "AWS_ENDPOINT_URL_S3": s3_url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(EMULATOR / "sagemaker_config.yaml"),
        "CV_FACTORY_TEST_ATTEMPTS": str(folder / "attempts.log"),
        "CV_FACTORY_TEST_PROJECT": mark,
        "DOCKER_HOST": os.environ.get("DOCKER_HOST", f"unix://{folder}/engine/docker.sock"),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
    }


@contextmanager
def _server(cloud: Cloud, name: str, *arguments: str, **variables: str) -> Iterator[None]:
    """Run Python as a server; end it with all its processes."""
    environment = {
        **{key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ},
        "HOME": str(cloud.folder / "home"),
        **cloud.environment,
        **variables,
    }
    with (cloud.folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            cwd=cloud.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        for child in psutil.wait_procs(children, timeout=3)[1]:
            child.kill()
        process.wait()


def _zenml(cloud: Cloud, port: int) -> Any:
    application = "zenml.zen_server.zen_server_api:app"
    return _server(
        cloud,
        "zenml",
        *(_GUARD, "-m", "uvicorn", application, "--host", "127.0.0.1", "--port", str(port)),
        ZENML_CONFIG_PATH=str(cloud.folder / "zenml"),
        ZENML_SERVER="true",
        ZENML_SERVER_AUTO_ACTIVATE="1",
        ZENML_DEFAULT_USER_NAME="default",
        ZENML_DEFAULT_USER_PASSWORD=_PASSWORD,
        ZENML_SERVER_DEPLOYMENT_TYPE="other",
        ZENML_SERVER_JWT_SECRET_KEY=secrets.token_hex(32),
    )


def _mlflow(cloud: Cloud, port: int) -> Any:
    database = f"sqlite:///{cloud.folder / 'mlflow.db'}"
    return _server(
        cloud,
        "mlflow",
        *(_GUARD, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", database, "--workers", "1", "--serve-artifacts"),
        *("--artifacts-destination", f"s3://{cloud.bucket}/mlflow"),
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
    )


_PASSWORD = "a-password-of-the-tests"


def _api_key(url: str) -> str:
    """Make a service account on the ZenML server and return its key."""

    def post(path: str, body: bytes, **headers: str) -> Any:
        request = urllib.request.Request(f"{url}/api/v1/{path}", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    login = urllib.parse.urlencode({"username": "default", "password": _PASSWORD}).encode()
    token = post("login", login)["access_token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    account = {"name": "tests", "description": "", "active": True}
    service_account = post("service_accounts", json.dumps(account).encode(), **headers)
    key = json.dumps({"name": "key", "description": ""}).encode()
    return str(
        post(f"service_accounts/{service_account['id']}/api_keys", key, **headers)["body"]["key"]
    )
