"""Typed HTTP client of the service, for Python programs and for ``run.py predict``."""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any

import httpx

from cv_factory.errors import ConfigError, CVFactoryError
from cv_factory.serving.http_client import (
    hide_password,
    is_loopback,
    open_http_client,
    proxy_variables,
)


class ServiceError(CVFactoryError):
    """The service cannot be reached, or rejected a request.

    Attributes:
        status: HTTP status code; None if there was no response.
        kind: Cause from the problem's ``type``, such as ``image``; empty if there is none.
        retry_after: Seconds after which to retry, if the service named them.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        kind: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.retry_after = retry_after


@dataclass(frozen=True)
class ImagePrediction:
    """Prediction of one image.

    Attributes:
        id: Identifies the prediction in the prediction log; ``run.py trace`` takes it.
        label: Predicted label; None if the service abstains.
        probabilities: Probabilities by label, most probable first.
        model: Name of the model.
        version: Version of the model.
        unfamiliar: Whether the image is unlike the training images; None if not scored.
        unfamiliarity: Score of that; above 1 it is.
        cached: Whether it comes from the service's response cache.
    """

    id: str
    label: str | None
    probabilities: dict[str, float]
    model: str
    version: str
    unfamiliar: bool | None = None
    unfamiliarity: float | None = None
    cached: bool = False


_FIELDS = {field.name for field in fields(ImagePrediction)}


class PredictionClient(AbstractContextManager["PredictionClient"]):
    """HTTP client of one service; use it in a ``with`` block, or ``close`` it."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Create the client without sending anything.

        Args:
            url: URL of the service, such as ``http://127.0.0.1:3000``.
            api_key: API key or token, if the service requires one.
            timeout: Timeout of each request in seconds.
            transport: Replacement of the network, for tests.

        Raises:
            ConfigError: The URL is malformed, the key holds characters that no key has, or the
                environment's proxy cannot be used.
        """
        self._url = hide_password(url)
        self._client = open_http_client(url, timeout=timeout, transport=transport)
        is_direct = transport is not None or is_loopback(self._client.base_url.host)
        self._proxy_variables = [] if is_direct else proxy_variables()
        if api_key := (api_key or "").strip():
            self._client.headers["Authorization"] = f"Bearer {_check_key(api_key)}"

    def __exit__(self, *exc_info: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def predict(self, image: bytes) -> ImagePrediction:
        """Predict one encoded image.

        Raises:
            ServiceError: The service cannot be reached, or rejects the image.
        """
        headers = {"Content-Type": "application/octet-stream"}
        return self._predict("/predict", content=image, headers=headers)[0]

    def predict_batch(self, images: Sequence[bytes]) -> list[ImagePrediction]:
        """Predict several encoded images in one request, in their order.

        Raises:
            ServiceError: The service cannot be reached, or rejects the images.
        """
        files = [("images", (str(n), image)) for n, image in enumerate(images)]
        return self._predict("/predict/batch", files=files)

    def model_info(self) -> dict[str, Any]:
        """Return the description of the served model.

        Raises:
            ServiceError: The service cannot be reached, or refuses.
        """
        information: dict[str, Any] = self._send("GET", "/model-info")
        return information

    def is_ready(self) -> bool:
        """Whether the service can be reached and its golden samples are verified."""
        try:
            return self._client.get("/readyz").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def _predict(self, path: str, **content: Any) -> list[ImagePrediction]:
        body = self._send("POST", path, **content)
        try:
            common: dict[str, Any] = {"model": body["model"], "version": body["version"]}
            common["cached"] = body.get("cached", False)
            return [
                # A later release may answer with more fields.
                ImagePrediction(**{k: v for k, v in row.items() if k in _FIELDS}, **common)
                for row in body["predictions"]
            ]
        except (AttributeError, KeyError, TypeError) as error:
            raise ServiceError(f"{self._url} is not a prediction service ({error!r}).") from None

    def _send(self, method: str, path: str, **content: Any) -> Any:
        try:
            response = self._client.request(method, path, **content)
        except httpx.HTTPError as error:
            reason = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
            if self._proxy_variables:
                reason += f" (the environment names a proxy: {', '.join(self._proxy_variables)})"
            raise ServiceError(f"{self._url} cannot be reached: {reason}") from None
        try:
            body = response.json()
        except ValueError:
            body = {}
        if response.is_success:
            return body
        raise _rejection_error(self._url, response, body if isinstance(body, dict) else {})


def _check_key(api_key: str) -> str:
    """Return a key or token that fits into a header.

    Raises:
        ConfigError: It holds other characters; the message does not show them.
    """
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise ConfigError(
            "The API key holds characters that no key or token has, such as a line break, a blank "
            "or a letter that is not ASCII: check --api-key or CV_FACTORY_API_KEY."
        )
    return api_key


def _rejection_error(url: str, response: httpx.Response, problem: dict[str, Any]) -> ServiceError:
    detail = problem.get("detail") or response.reason_phrase
    retry_after = response.headers.get("retry-after", "")
    return ServiceError(
        f"{url} rejected the request ({response.status_code}): {detail}",
        status=response.status_code,
        kind=str(problem.get("type", "")).rpartition(":")[2],
        retry_after=float(retry_after) if retry_after.isdecimal() else None,
    )
