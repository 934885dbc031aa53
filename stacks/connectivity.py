"""Connectivity checks: the services behind a stack's components exist, answer and grant access.

Read-only: nothing is created, written or charged for. Write access to a bucket is tested with an
upload whose checksum is wrong: an S3 server refuses it after it has checked the permission.
"""

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from cv_factory.deployment.sagemaker.aws_calls import quiet_aws_logs
from cv_factory.deployment.sagemaker.aws_errors import aws_error
from cv_factory.errors import CVFactoryError
from cv_factory.serving.http_client import open_http_client
from stacks.spec import ComponentSpec, StackSpec, whole_secret_reference

_TIMEOUT_S = 15.0
_JOBS_SERVICE = "sagemaker.amazonaws.com"
_PROBE_KEY = ".cv-factory-check"

#: Returns boto3's client of a service.
Client = Callable[[str], Any]


class ConnectivityError(CVFactoryError):
    """A service behind a component is missing, does not answer, or denies access."""


def check_connectivity(spec: StackSpec) -> Iterator[ConnectivityError]:
    """Yield an error for each component whose service cannot be used."""
    region = spec.environment.get("AWS_DEFAULT_REGION")
    for kind, part in spec.components.items():
        check = _CHECKS.get((kind, part.flavor))
        if check is None:
            continue
        try:
            check(part, partial(_client, region), spec)
        except CVFactoryError as error:
            yield ConnectivityError(f"{kind} {part.name}: {error}")


def server_mismatch() -> str:
    """Return how the versions of ZenML's server and client differ; empty if they do not."""
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
    config = Config(connect_timeout=5, read_timeout=_TIMEOUT_S, retries={"max_attempts": 2})
    return boto3.Session(region_name=region).client(service, config=config)


def _call_aws(
    call: Callable[..., Any], resource: str, missing_code: str = "", **arguments: Any
) -> Any:
    """Call AWS and translate its errors.

    Args:
        call: Method of a client.
        resource: What is looked up, such as ``role NAME``.
        missing_code: AWS's error code for a resource that does not exist.
        arguments: Arguments of the call.

    Raises:
        ConnectivityError: The resource does not exist.
        AwsError: AWS denies the call or cannot be reached.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return call(**arguments)
    except ClientError as error:
        if error.response["Error"].get("Code") == missing_code:
            raise ConnectivityError(f"there is no {resource}. {_DEPLOY}") from None
        raise aws_error(error, resource) from None
    except BotoCoreError as error:
        raise aws_error(error, resource) from None


def _check_bucket(part: ComponentSpec, client: Client, spec: StackSpec) -> None:
    from botocore.exceptions import ClientError

    bucket, _, prefix = part.configuration["path"].removeprefix("s3://").partition("/")
    resource, arn = f"bucket {bucket}", f"arn:aws:s3:::{bucket}"
    s3 = client("s3")
    _call_aws(s3.head_bucket, resource, "404", Bucket=bucket)
    wrong_checksum = base64.b64encode(
        hashlib.md5(b"other", usedforsecurity=False).digest()
    ).decode()
    key = "/".join(filter(None, [prefix.rstrip("/"), _PROBE_KEY]))
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=b"", ContentMD5=wrong_checksum)
    except ClientError as error:
        if error.response["Error"].get("Code") in ("BadDigest", "InvalidDigest"):
            return
        raise aws_error(error, resource, action="s3:PutObject", resource=f"{arn}/{key}") from None
    raise ConnectivityError(
        f"the S3 server stored a file whose checksum is wrong ({key}); delete it. A server that "
        "does not check what it receives cannot keep artifacts."
    )


def _check_repository(part: ComponentSpec, client: Client, spec: StackSpec) -> None:
    _check_ecr_repository(str(part.configuration.get("default_repository", "zenml")), client)


def _check_ecr_repository(name: str, client: Client) -> None:
    _call_aws(
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
        _check_ecr_repository(name, client)
    _call_aws(client("sagemaker").list_endpoints, "endpoints", MaxResults=1)


def _check_project(part: ComponentSpec, client: Client, spec: StackSpec) -> None:
    name = part.configuration["code_build_project"]
    response = _call_aws(
        client("codebuild").batch_get_projects, f"build project {name}", names=[name]
    )
    if not response["projects"]:
        raise ConnectivityError(f"there is no build project {name}. {_DEPLOY}")


def _check_role(part: ComponentSpec, client: Client, spec: StackSpec) -> None:
    arn = str(part.configuration.get("execution_role") or part.configuration["role"])
    name = arn.rpartition("/")[2]
    role = _call_aws(client("iam").get_role, f"role {name}", "NoSuchEntity", RoleName=name)
    trust_policy = json.dumps(role["Role"]["AssumeRolePolicyDocument"])
    if _JOBS_SERVICE not in trust_policy:
        raise ConnectivityError(
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
    credentials = (
        _resolve_secret(settings.get("tracking_username"), spec),
        _resolve_secret(settings.get("tracking_password"), spec),
    )
    with open_http_client(uri, timeout=_TIMEOUT_S) as http:
        address = http.base_url.netloc.decode()
        try:
            response = http.post(
                "/api/2.0/mlflow/experiments/search", json={"max_results": 1}, auth=credentials
            )
        except httpx.HTTPError as error:
            raise ConnectivityError(
                f"MLflow at {address} does not answer ({error}). Is it running, and may this "
                "machine reach it?"
            ) from None
    if response.status_code in (401, 403):
        raise ConnectivityError(
            f"MLflow at {address} does not accept the user and password of the stack file "
            "(CV_FACTORY_MLFLOW_USERNAME, CV_FACTORY_MLFLOW_PASSWORD)."
        )
    if response.status_code != 200:
        raise ConnectivityError(
            f"MLflow at {address} answers {response.status_code}; is this an MLflow server?"
        )


def _resolve_secret(setting: Any, spec: StackSpec) -> str:
    """Return a setting, with the value of the secret that it refers to."""
    reference = whole_secret_reference(setting)
    if reference is None:
        return str(setting or "")
    secret, key = reference
    values: Mapping[str, Any] = spec.secrets.get(secret, {})
    return str(values[key].get_secret_value()) if key in values else ""


_DEPLOY = "stacks/aws/template.yaml makes it: see docs/aws.md"
_CHECKS: dict[tuple[str, str], Callable[[ComponentSpec, Client, StackSpec], None]] = {
    ("artifact_store", "s3"): _check_bucket,
    ("container_registry", "aws"): _check_repository,
    ("image_builder", "codebuild"): _check_project,
    ("orchestrator", "sagemaker_sized"): _check_role,
    ("step_operator", "sagemaker_sized"): _check_role,
    ("model_deployer", "sagemaker_bento"): _check_endpoints,
    ("experiment_tracker", "mlflow"): _check_mlflow,
}
