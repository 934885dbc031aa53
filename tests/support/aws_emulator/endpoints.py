"""Runs what SageMaker's endpoints would run: each instance of a variant is a process that answers.

Its command is that of the service's image, with the model data from S3 in place of /opt/ml/model.
Where it differs: instances of variants that an update does not change stay, a scaling policy
scales nothing, bodies in several parts are not handed on, and the image need not exist.
"""

import base64
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from api_limits import violations
from controls import Controls
from jobs import _CONTAINER_VARIABLES
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.logs.models import logs_backends
from moto.sagemaker.exceptions import AWSValidationException
from moto.sagemaker.models import FakeEndpoint, SageMakerModelBackend, sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse
from moto.sagemakerruntime.responses import SageMakerRuntimeResponse

_ROOT = Path(__file__).resolve().parents[3]
_CONTAINERFILE = _ROOT / "stacks" / "aws" / "service.Containerfile"
_GUARDED = Path(__file__).with_name("guarded.py")
_MODEL_FOLDER = "/opt/ml/model"
_GROUP = "/aws/sagemaker/Endpoints/{endpoint}"
_PING_SECONDS = 60.0
_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
_Answer = tuple[int, dict[str, str], bytes | str]


@dataclass
class Instance:
    """A process that answers, and how many requests it has not answered yet."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    in_flight: int = 0
    keeper: threading.Thread | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether it answers SageMaker's health check."""
        with suppress(OSError):
            ping = f"http://127.0.0.1:{self.port}/ping"
            with urllib.request.urlopen(ping, timeout=2) as answer:
                return bool(answer.status == 200)
        return False

    def end(self) -> None:
        """End it when it has answered what it was given."""
        deadline = time.monotonic() + 30
        while self.in_flight and time.monotonic() < deadline:
            time.sleep(0.01)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.keeper is not None:
            self.keeper.join(5)


@dataclass
class Endpoints:
    """All instances that run, by endpoint, variant and number.

    Attributes:
        folder: Holds a folder for each instance.
    """

    folder: Path
    running: dict[tuple[str, str], list[Instance]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, endpoint: str, variant: dict[str, Any], container: dict[str, Any]) -> Instance:
        """Start one instance of a variant; it need not answer yet."""
        folder = self.folder / f"{endpoint}-{variant['VariantName']}-{uuid.uuid4().hex[:8]}"
        source = container["ModelDataSource"]["S3DataSource"]
        _download(source["S3Uri"], folder / "model")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        command, image_variables = _image(folder / "model")
        environment = {
            **{key: os.environ[key] for key in _CONTAINER_VARIABLES if key in os.environ},
            **image_variables,
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "BENTOML_HOME": str(folder / "bentoml"),
            "SAGEMAKER_BIND_TO_PORT": str(port),
            **container.get("Environment", {}),
        }
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                # A container listens on all addresses; a process of this machine must not.
                [sys.executable, str(_GUARDED), *command, "--host", "127.0.0.1"],
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Instance(process, port, log)

    def pick(self, endpoint: FakeEndpoint, requested: str | None) -> tuple[str, Instance] | None:
        """Pick a variant, by weight where none is wanted, and of its instances the idlest.

        Returns:
            The variant and the instance, which now has a request more; None if there is none.
        """
        misdirected = Controls.read(self.folder).misdirected
        # Not apart: an instance that is picked must not be ended before it is counted.
        with self.lock:
            variant = _choose_variant(endpoint, requested)
            if variant is None:
                return None
            serving = misdirected[1] if variant in misdirected[:1] else variant
            instances = self.running[endpoint.endpoint_name, serving]
            chosen = min(instances, key=lambda instance: instance.in_flight)
            chosen.in_flight += 1
        return variant, chosen

    def end(self, endpoint: str, variants: set[str] | None = None) -> None:
        """End all instances of an endpoint, or of some of its variants."""
        with self.lock:
            finished = [
                key for key in self.running
                if key[0] == endpoint and (variants is None or key[1] in variants)
            ]  # fmt: skip
            instances = [instance for key in finished for instance in self.running.pop(key)]
        for instance in instances:
            instance.end()

    def end_all(self) -> None:
        """End everything that runs."""
        for endpoint in {endpoint for endpoint, _ in self.running}:
            self.end(endpoint)


def install(endpoints: Endpoints) -> None:
    """Make moto's SageMaker run what its endpoints consist of."""
    for action in ("create_model", "create_endpoint_config"):
        _check_limits(action)
    _create_and_update(endpoints)
    _change_weights(endpoints)
    _invoke(endpoints)
    delete = SageMakerModelBackend.delete_endpoint

    def delete_endpoint(backend: SageMakerModelBackend, endpoint_name: str) -> None:
        delete(backend, endpoint_name)
        endpoints.end(endpoint_name)

    SageMakerModelBackend.delete_endpoint = delete_endpoint


def _check_limits(action: str) -> None:
    """Refuse requests that AWS would refuse; moto accepts nearly anything."""
    create: Callable[[SageMakerResponse], ActionResult] = getattr(SageMakerResponse, action)
    shape = "".join(word.title() for word in action.split("_")) + "Input"

    def checked(response: SageMakerResponse) -> ActionResult:
        _refuse_violations(shape, json.loads(response.body))
        return create(response)

    setattr(SageMakerResponse, action, checked)


def _create_and_update(endpoints: Endpoints) -> None:
    create = SageMakerModelBackend.create_endpoint

    def create_endpoint(response: SageMakerResponse) -> ActionResult:
        request = json.loads(response.body)
        _refuse_violations("CreateEndpointInput", request)
        backend = response.sagemaker_backend
        if request["EndpointName"] in backend.endpoints:
            raise AWSValidationException(f"Cannot create already existing endpoint {request}")
        endpoint_record = create(
            backend, request["EndpointName"], request["EndpointConfigName"], request.get("Tags")
        )
        endpoint_record.endpoint_status = "Creating"
        endpoint_record.production_variants = []
        _in_background(
            _bring_about, endpoints, backend, endpoint_record, request["EndpointConfigName"]
        )
        return ActionResult({"EndpointArn": endpoint_record.arn})

    def update_endpoint(response: SageMakerResponse) -> ActionResult:
        request = json.loads(response.body)
        _refuse_violations("UpdateEndpointInput", request)
        backend = response.sagemaker_backend
        name, config = request["EndpointName"], request["EndpointConfigName"]
        backend.describe_endpoint_config(config)
        backend.describe_endpoint(name)
        endpoint = backend.endpoints[name]
        if endpoint.endpoint_status != "InService":
            raise AWSValidationException(
                f'Cannot update in-progress endpoint "{endpoint.arn}" ({endpoint.endpoint_status}).'
            )
        endpoint.endpoint_status = "Updating"
        _in_background(_bring_about, endpoints, backend, endpoint, config)
        return ActionResult({"EndpointArn": endpoint.arn})

    SageMakerResponse.create_endpoint = create_endpoint
    SageMakerResponse.update_endpoint = update_endpoint


def _bring_about(
    endpoints: Endpoints, backend: SageMakerModelBackend, endpoint: FakeEndpoint, config: str
) -> None:
    """Start what a configuration asks for, and let it serve if all of it answers."""
    name = endpoint.endpoint_name
    before = {variant["VariantName"] for variant in endpoint.production_variants}
    requested = backend.describe_endpoint_config(config)["ProductionVariants"]
    new = [variant for variant in requested if variant["VariantName"] not in before]
    reason = _start_all(endpoints, backend, name, new)
    endpoint.failure_reason = reason
    endpoint.last_modified_time = utcnow()
    if reason:
        endpoints.end(name, {variant["VariantName"] for variant in new})
        endpoint.endpoint_status = "InService" if before else "Failed"
        return
    endpoint.production_variants = [
        {
            "VariantName": variant["VariantName"],
            "CurrentWeight": _single_precision(variant["InitialVariantWeight"]),
            "DesiredWeight": _single_precision(variant["InitialVariantWeight"]),
            "CurrentInstanceCount": variant["InitialInstanceCount"],
            "DesiredInstanceCount": variant["InitialInstanceCount"],
        }
        for variant in requested
    ]
    endpoint.endpoint_config_name = config
    endpoints.end(name, before - {variant["VariantName"] for variant in requested})
    endpoint.endpoint_status = "InService"


def _start_all(
    endpoints: Endpoints, backend: SageMakerModelBackend, name: str, variants: list[dict[str, Any]]
) -> str | None:
    """Start all instances of new variants; return why that failed, None if all answer."""
    for variant in variants:
        variant_name = variant["VariantName"]
        container = backend.describe_model(variant["ModelName"]).primary_container
        instances = [
            endpoints.start(name, variant, container)
            for _ in range(variant["InitialInstanceCount"])
        ]
        with endpoints.lock:
            endpoints.running[name, variant_name] = instances
        for number, instance in enumerate(instances):
            stream = f"{variant_name}/i-{number:017x}"
            instance.keeper = _in_background(_keep_log, backend, instance, name, stream)
        deadline = time.monotonic() + _PING_SECONDS
        while not all(instance.is_healthy for instance in instances):
            finished = any(instance.process.poll() is not None for instance in instances)
            if finished or time.monotonic() > deadline:
                return (
                    f"The primary container for production variant {variant_name} did not pass "
                    "the ping health check. Please check CloudWatch logs for this endpoint."
                )
            time.sleep(0.05)
    return None


def _keep_log(
    backend: SageMakerModelBackend, instance: Instance, endpoint: str, stream: str
) -> None:
    """Hand what an instance prints to CloudWatch, until it has ended."""
    logs = logs_backends[backend.account_id][backend.region_name]
    group = _GROUP.format(endpoint=endpoint)
    with suppress(Exception):  # moto has no exception of its own for "is there already"
        logs.create_log_group(group, {})
    with suppress(Exception):
        logs.create_log_stream(group, stream)
    with instance.log.open(encoding="utf-8", errors="replace") as file:
        is_over = False
        while not is_over:
            is_over = instance.process.poll() is not None
            lines = [line for line in file.readlines() if line.strip()]
            now = int(time.time() * 1000)
            if lines:
                events = [{"timestamp": now, "message": line.rstrip("\n")} for line in lines]
                logs.put_log_events(group, stream, events)
            time.sleep(0.05)


def _change_weights(endpoints: Endpoints) -> None:
    change: Callable[[SageMakerResponse], ActionResult] = (
        SageMakerResponse.update_endpoint_weights_and_capacities
    )

    def checked(response: SageMakerResponse) -> ActionResult:
        request = json.loads(response.body)
        _refuse_violations("UpdateEndpointWeightsAndCapacitiesInput", request)
        for variant in request["DesiredWeightsAndCapacities"]:
            key = request["EndpointName"], variant["VariantName"]
            if len(endpoints.running.get(key, [])) != variant["DesiredInstanceCount"]:
                raise AWSValidationException("the emulator changes no numbers of instances")
        changed = response.sagemaker_backend.endpoints[request["EndpointName"]]
        before = {v["VariantName"]: v["CurrentWeight"] for v in changed.production_variants}
        result = change(response)
        is_stuck = request["EndpointName"] in Controls.read(endpoints.folder).stuck_weights
        for variant in changed.production_variants:
            if is_stuck:
                variant["CurrentWeight"] = before[variant["VariantName"]]
            for weight in ("CurrentWeight", "DesiredWeight"):
                variant[weight] = _single_precision(variant[weight])
        return result

    SageMakerResponse.update_endpoint_weights_and_capacities = checked


def _single_precision(weight: float) -> float:
    """Return a weight as SageMaker keeps it."""
    (rounded,) = struct.unpack("f", struct.pack("f", weight))
    return float(rounded)


def _invoke(endpoints: Endpoints) -> None:
    def invoke_endpoint(response: SageMakerRuntimeResponse) -> _Answer:
        backend = sagemaker_backends[response.current_account][response.region]
        name = response.path.split("/")[2]
        endpoint = backend.endpoints.get(name)
        if endpoint is None or not endpoint.production_variants:
            return _problem(400, "ValidationError", f"Endpoint {name} not found.")
        requested = response.headers.get("X-Amzn-SageMaker-Target-Variant")
        picked = endpoints.pick(endpoint, requested)
        if picked is None:
            return _problem(400, "ValidationError", f"There is no variant {requested}.")
        variant, instance = picked
        body = response.body if isinstance(response.body, bytes) else response.body.encode()
        content_type = response.headers.get("Content-Type", "application/octet-stream")
        try:
            status, answer_type, answer = _ask(instance, body, _handed_on(response.headers))
        finally:
            with endpoints.lock:
                instance.in_flight -= 1
        if status != 200:
            fields = {
                "Message": f"Received client error ({status}) from primary",
                "OriginalStatusCode": status,
                "OriginalMessage": answer.decode(errors="replace"),
            }
            return _problem(424, "ModelError", **fields)
        _capture(backend, endpoint, variant, (content_type, body), (answer_type, answer))
        return (
            200,
            {"Content-Type": answer_type, "x-Amzn-Invoked-Production-Variant": variant},
            answer,
        )

    SageMakerRuntimeResponse.use_raw_body = True
    SageMakerRuntimeResponse.invoke_endpoint = invoke_endpoint


def _choose_variant(endpoint: FakeEndpoint, requested: str | None) -> str | None:
    """Return the variant that is wanted, or one by weight."""
    variants = {v["VariantName"]: v["CurrentWeight"] for v in endpoint.production_variants}
    if requested is not None:
        return requested if requested in variants else None
    return random.choices(list(variants), list(variants.values()))[0]


def _handed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what a container sees of a request's headers."""
    handed = {"Content-Type": headers.get("Content-Type", "application/octet-stream")}
    if attributes := headers.get(_ATTRIBUTES):
        handed[_ATTRIBUTES] = attributes
    return handed


def _ask(instance: Instance, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{instance.port}/invocations", data=body, headers=headers
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read()
    except OSError as error:
        return 500, "text/plain", str(error).encode()


def _capture(
    backend: SageMakerModelBackend,
    endpoint: FakeEndpoint,
    variant: str,
    request: tuple[str, bytes],
    answer: tuple[str, bytes],
) -> None:
    """Write a request and its answer to the bucket, where the configuration asks for it."""
    config = backend.describe_endpoint_config(endpoint.endpoint_config_name)
    capture = config.get("DataCaptureConfig") or {}
    if not capture.get("EnableCapture"):
        return
    if random.random() * 100 >= capture["InitialSamplingPercentage"]:
        return
    as_text = capture.get("CaptureContentTypeHeader", {}).get("JsonContentTypes", [])

    def fields(mode: str, content_type: str, content: bytes) -> dict[str, str]:
        is_text = content_type in as_text
        data = content.decode() if is_text else base64.b64encode(content).decode()
        encoding = "JSON" if is_text else "BASE64"
        return {"observedContentType": content_type, "mode": mode, "data": data,
                "encoding": encoding}  # fmt: skip

    line = {
        "captureData": {
            "endpointInput": fields("INPUT", *request),
            "endpointOutput": fields("OUTPUT", *answer),
        },
        "eventMetadata": {"eventId": str(uuid.uuid4())},
        "eventVersion": "0",
    }
    target = urlsplit(capture["DestinationS3Uri"])
    key = f"{target.path.lstrip('/')}/{endpoint.endpoint_name}/{variant}/{uuid.uuid4()}.jsonl"
    boto3.client("s3").put_object(Bucket=target.netloc, Key=key, Body=json.dumps(line).encode())


def _image(model: Path) -> tuple[list[str], dict[str, str]]:
    """Return command and variables of the service's image, read off its Containerfile."""
    text = _CONTAINERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    entrypoint, command = (
        json.loads(re.findall(rf"^{word} (\[.*\])$", text, re.MULTILINE)[0])
        for word in ("ENTRYPOINT", "CMD")
    )
    (variables,) = re.findall(r"^ENV (.*)$", text, re.MULTILINE)
    program, *arguments = [*entrypoint, *command]
    assert program == "python3", "the emulator runs Python only"
    pairs = dict(pair.split("=", 1) for pair in variables.split())
    return arguments, {k: v.replace(_MODEL_FOLDER, str(model)) for k, v in pairs.items()}


def _download(uri: str, folder: Path) -> None:
    """Lay a prefix of a bucket under a folder, as SageMaker does with uncompressed model data."""
    shutil.rmtree(folder, ignore_errors=True)
    place = urlsplit(uri)
    s3, prefix = boto3.client("s3"), place.path.lstrip("/")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=place.netloc, Prefix=prefix)
    for key in (problems["Key"] for page in pages for problems in page.get("Contents", [])):
        target = folder / key.removeprefix(prefix)
        target.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(place.netloc, key, str(target))


def _problem(status: int, kind: str, message: str = "", **fields: Any) -> _Answer:
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": kind}
    # moto reads the status off the headers.
    return status, {**headers, "status": str(status)}, json.dumps(fields or {"Message": message})


def _in_background(work: Callable[..., None], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def _refuse_violations(shape: str, request: dict[str, Any]) -> None:
    problems = violations("sagemaker", shape, request)
    if problems:
        raise AWSValidationException("; ".join(problems))
