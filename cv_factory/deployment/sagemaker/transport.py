"""HTTPX transport over ``invoke_endpoint``: clients of the service reach an endpoint unchanged."""

import json
from typing import Any

import httpx

from cv_factory.deployment.sagemaker.aws_calls import AwsClients, translate_aws_errors

#: ``sagemaker://ENDPOINT``: how the commands of this project name an endpoint.
SCHEME = "sagemaker"


def endpoint_url(name: str) -> str:
    """Return how commands of this project name an endpoint."""
    return f"{SCHEME}://{name}"


class EndpointTransport(httpx.BaseTransport):
    """Hands the body of each request to an endpoint, whatever its path is.

    Of its headers SageMaker hands on the type of the body, and what is put into one of its own:
    there the service finds ``Cache-Control``.
    """

    def __init__(self, aws: AwsClients, endpoint: str, variant: str | None = None) -> None:
        """Prepare; nothing is sent yet.

        Args:
            aws: The clients.
            endpoint: Its name.
            variant: The one that responds; chosen by weight where it is None.
        """
        self._aws = aws
        self._arguments: dict[str, Any] = {"EndpointName": endpoint}
        if variant is not None:
            self._arguments["TargetVariant"] = variant

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response of the container, whatever its status."""
        name = self._arguments["EndpointName"]
        attributes = {}
        if control := request.headers.get("Cache-Control"):
            attributes["CustomAttributes"] = f"cache-control={control}"
        with translate_aws_errors(f"The endpoint {name} cannot be invoked"):
            runtime = self._aws.client("sagemaker-runtime")
            try:
                response = runtime.invoke_endpoint(
                    **self._arguments,
                    **attributes,
                    Body=request.read(),
                    ContentType=request.headers.get("Content-Type", "application/octet-stream"),
                )
            except runtime.exceptions.ModelError as error:
                status = int(error.response.get("OriginalStatusCode", 500))
                return httpx.Response(status, content=_message(error.response), request=request)
        return httpx.Response(
            200,
            headers={"Content-Type": response["ContentType"]},
            content=response["Body"].read(),
            request=request,
        )


def _message(response: dict[str, Any]) -> bytes:
    """Return the body of the container's own response."""
    message = response.get("OriginalMessage") or json.dumps(
        {"detail": response["Error"].get("Message", "")}
    )
    return str(message).encode()
