"""What ``python -m stacks check`` says of an MLflow server, and of calls that AWS refuses."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from cv_factory.deployment.sagemaker.aws_errors import aws_error
from stacks.connectivity import check_connectivity
from stacks.spec import StackSpec


@contextmanager
def server_stub(status: int) -> Iterator[str]:
    """A server that gives every request the same answer, and is no MLflow."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    seen: list[str] = []
    for method in ("GET", "POST"):
        setattr(Handler, f"do_{method}", Handler.answer)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
        assert seen == ["Basic bWU6aHVzaA=="], "the secret's values, me:hush"
    finally:
        server.shutdown()
        server.server_close()


def _check_tracker(uri: str) -> list[str]:
    tracker = {
        "tracking_uri": uri,
        "tracking_username": "{{tracking.username}}",
        "tracking_password": "{{tracking.password}}",
    }
    spec = StackSpec.model_validate(
        {
            "name": "case",
            "components": {
                "orchestrator": {"name": "o", "flavor": "local"},
                "artifact_store": {"name": "a", "flavor": "local"},
                "experiment_tracker": {"name": "t", "flavor": "mlflow", "configuration": tracker},
            },
            "secrets": {"tracking": {"username": "me", "password": "hush"}},
        }
    )
    return [str(error) for error in check_connectivity(spec)]


def test_an_mlflow_that_answers_is_not_mentioned() -> None:
    with server_stub(200) as uri:
        assert _check_tracker(uri) == []


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, "does not accept the user and password"), (404, "answers 404; is this an MLflow")],
)
def test_an_mlflow_that_refuses_is_named(status: int, expected: str) -> None:
    with server_stub(status) as uri:
        (message,) = _check_tracker(uri)
    assert message.startswith("experiment_tracker t: MLflow at 127.0.0.1:")
    assert expected in message
    assert "hush" not in message


def test_a_refusal_names_action_and_resource_from_aws_words_or_ours() -> None:
    words = (
        "User: arn:aws:iam::1:user/me is not authorized to perform: iam:PassRole on resource: "
        "arn:aws:iam::1:role/jobs because no identity-based policy allows the iam:PassRole action"
    )
    message = str(aws_error(_denied("CreatePipeline", words), "No run"))
    assert message.startswith(
        "No run: permission is missing for iam:PassRole on arn:aws:iam::1:role/"
    )
    denied = _denied("PutObject", "Access Denied")
    silent = aws_error(denied, "x", action="s3:PutObject", resource="arn:aws:s3:::b/k")
    assert "permission is missing for s3:PutObject on arn:aws:s3:::b/k" in str(silent)


def test_credentials_that_are_missing_or_old_are_told_apart() -> None:
    assert "there are no AWS credentials" in str(aws_error(NoCredentialsError(), "x"))
    expired = ClientError({"Error": {"Code": "ExpiredToken", "Message": "old"}}, "GetRole")
    assert "aws sso login" in str(aws_error(expired, "x"))


def _denied(operation: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": "AccessDenied", "Message": message}}, operation)
