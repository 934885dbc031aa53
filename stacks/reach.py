"""Says whether what a stack's components stand for is there, answers, and lets us in.

Only reads: nothing is created, written or charged for. Whether a bucket can be written to is found
out by an upload that every S3 server must refuse after it has checked the permission, since the
checksum that comes with it is not the content's.
"""

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from cv_factory.deployment.sagemaker.aws_calls import quiet_aws_logs
from cv_factory.deployment.sagemaker.aws_errors import refusal
from cv_factory.errors import CVFactoryError
from stacks.spec import ComponentSpec, StackSpec, whole_secret_reference

_SECONDS_TO_ANSWER = 15.0
_JOBS_SERVICE = "sagemaker.amazonaws.com"
_PROBE_KEY = ".cv-factory-check"

Client = Callable[[str], Any]


class OutOfReachError(CVFactoryError):
    """Something that a stack consists of is missing, does not answer, or refuses us."""


def unreachable(spec: StackSpec) -> Iterator[OutOfReachError]:
    """Yield an error for each component that could not do its work."""
    region = spec.environment.get("AWS_DEFAULT_REGION")
    for kind, part in spec.components.items():
        probe = _PROBES.get((kind, part.flavor))
        if probe is None:
            continue
        try:
            probe(part, partial(_client, region), spec)
        except CVFactoryError as error:
            yield OutOfReachError(f"{kind} {part.name}: {error}")


def server_mismatch() -> str:
    """Say how the versions of ZenML's server and client differ; empty if they do not."""
    import zenml
    from zenml.client import Client as ZenMLClient

    server = str(ZenMLClient().zen_store.get_store_info().version)
    if server == zenml.__version__:
        return ""
    return f"the ZenML server has version {server}, this client {zenml.__version__}"


def _client(region: str | None, service: str) -> Any:
    import boto3
    from botocore.config import Config

    quiet_aws_logs()
    patience = Config(
        connect_timeout=5, read_timeout=_SECONDS_TO_ANSWER, retries={"max_attempts": 2}
    )
    return boto3.Session(region_name=region).client(service, config=patience)


def _ask(call: Callable[..., Any], what: str, missing: str = "", **arguments: Any) -> Any:
    """Call AWS; what it answers to a call that it does not do becomes our error.

    Args:
        call: Method of a client.
        what: What is asked for, such as ``role NAME``.
        missing: Code by which AWS says that there is no such thing.
        arguments: Arguments of the call.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return call(**arguments)
    except ClientError as error:
        if error.response["Error"].get("Code") == missing:
            raise OutOfReachError(f"there is no {what}. {_DEPLOY}") from None
        raise refusal(error, what) from None
    except BotoCoreError as error:
        raise refusal(error, what) from None


def _check_bucket(part: ComponentSpec, client: Client, spec: StackSpec) -> None:
    from botocore.exceptions import ClientError

    bucket, _, prefix = part.configuration["path"].removeprefix("s3://").partition("/")
    what, arn = f"bucket {bucket}", f"arn:aws:s3:::{bucket}"
    s3 = client("s3")
    _ask(s3.head_bucket, what, "404", Bucket=bucket)
    other = base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()
    key = "/".join(filter(None, [prefix.rstrip("/"), _PROBE_KEY]))
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=b"", ContentMD5=other)
    except ClientError as error:
        if error.response["Error"].get("Code") in ("BadDigest", "InvalidDigest"):
            return
        raise refusal(error, what, action="s3:PutObject", resource=f"{arn}/{key}") from None
    raise OutOfReachError(
        f"the S3 server stored a file whose checksum is wrong ({key}); delete it. A server that "
        "does not check what it receives cannot keep artifacts."
    )


def _check_repository(part: ComponentSpec, client: Client, spec: StackSpec) -> None:
    _ask_repository(str(part.configuration.get("default_repository", "zenml")), client)


def _ask_repository(name: str, client: Client) -> None:
    _ask(
        client("ecr").describe_repositories,
        f"repository {name}",
        "RepositoryNotFoundException",
        repositoryNames=[name],
    )


def _check_endpoints(part: ComponentSpec, client: Client, spec: StackSpec) -> None:
    settings = part.configuration
    _check_role(part, client, spec)
    if not settings.get("image"):
        name = str(settings["repository"]).partition("/")[2]
        _ask_repository(name, client)
    _ask(client("sagemaker").list_endpoints, "endpoints", MaxResults=1)


def _check_project(part: ComponentSpec, client: Client, spec: StackSpec) -> None:
    name = part.configuration["code_build_project"]
    found = _ask(client("codebuild").batch_get_projects, f"build project {name}", names=[name])
    if not found["projects"]:
        raise OutOfReachError(f"there is no build project {name}. {_DEPLOY}")


def _check_role(part: ComponentSpec, client: Client, spec: StackSpec) -> None:
    arn = str(part.configuration.get("execution_role") or part.configuration["role"])
    name = arn.rpartition("/")[2]
    found = _ask(client("iam").get_role, f"role {name}", "NoSuchEntity", RoleName=name)
    trusted = json.dumps(found["Role"]["AssumeRolePolicyDocument"])
    if _JOBS_SERVICE not in trusted:
        raise OutOfReachError(
            f"SageMaker may not assume the role {name}: its trust policy does not name "
            f"{_JOBS_SERVICE}. {_DEPLOY}"
        )


def _check_mlflow(part: ComponentSpec, client: Client, spec: StackSpec) -> None:
    settings = part.configuration
    uri = settings.get("tracking_uri")
    if not uri:
        return
    import httpx

    logging.getLogger("httpx").setLevel(logging.WARNING)
    address = urlsplit(uri)
    credentials = (
        _value(settings.get("tracking_username"), spec),
        _value(settings.get("tracking_password"), spec),
    )
    try:
        answer = httpx.post(
            f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search",
            json={"max_results": 1},
            auth=credentials,
            timeout=_SECONDS_TO_ANSWER,
        )
    except httpx.HTTPError as error:
        raise OutOfReachError(
            f"MLflow at {address.netloc} does not answer ({error}). Is it running, and may this "
            "machine reach it?"
        ) from None
    if answer.status_code in (401, 403):
        raise OutOfReachError(
            f"MLflow at {address.netloc} does not accept the user and password of the stack file "
            "(CV_FACTORY_MLFLOW_USERNAME, CV_FACTORY_MLFLOW_PASSWORD)."
        )
    if answer.status_code != 200:
        raise OutOfReachError(
            f"MLflow at {address.netloc} answers {answer.status_code}; is this an MLflow server?"
        )


def _value(setting: Any, spec: StackSpec) -> str:
    """Return a setting, or the value of the secret that it refers to."""
    reference = whole_secret_reference(setting)
    if reference is None:
        return str(setting or "")
    secret, key = reference
    values: Mapping[str, Any] = spec.secrets.get(secret, {})
    return str(values[key].get_secret_value()) if key in values else ""


_DEPLOY = "stacks/aws/template.yaml makes it: see docs/aws.md"
_PROBES: dict[tuple[str, str], Callable[[ComponentSpec, Client, StackSpec], None]] = {
    ("artifact_store", "s3"): _check_bucket,
    ("container_registry", "aws"): _check_repository,
    ("image_builder", "codebuild"): _check_project,
    ("orchestrator", "sagemaker_sized"): _check_role,
    ("step_operator", "sagemaker_sized"): _check_role,
    ("model_deployer", "sagemaker_bento"): _check_endpoints,
    ("experiment_tracker", "mlflow"): _check_mlflow,
}
