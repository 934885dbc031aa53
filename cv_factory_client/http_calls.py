"""The calls of a service over HTTP."""

import re
import ssl
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from cv_factory_client.addresses import hide_password, is_loopback, proxy_variables
from cv_factory_client.calls import Call
from cv_factory_client.credentials import check_api_key, read_ca
from cv_factory_client.errors import ClientConfigError, ServiceError
from cv_factory_client.rejections import rejection_error
from cv_factory_client.results import ImagePrediction, Label, ModelInfo, parse_prediction


class HttpCalls:
    """Calls over HTTP.

    Attributes:
        client: Sends them.
    """

    errors: tuple[type[Exception], ...] = (httpx.HTTPError,)

    def __init__(
        self,
        url: str,
        api_key: str | None,
        timeout: float,
        ca: Path | None,
        *,
        is_async: bool,
        transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Create the client without sending anything.

        Raises:
            ClientConfigError: The URL is malformed, the key or the CA certificate cannot be used,
                or the environment's proxy.
        """
        self._url = hide_password(url)
        key = check_api_key(api_key)
        host = _check_url(url, has_transport=transport is not None)
        is_direct = transport is not None or is_loopback(host)
        self._proxy_variables = [] if is_direct else proxy_variables()
        options: dict[str, Any] = {
            "base_url": url,
            "timeout": timeout,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "verify": _tls_context(ca) if ca else True,
        }
        # With a transport, httpx does not read the variables of proxies.
        if is_direct and transport is None:
            make = httpx.AsyncHTTPTransport if is_async else httpx.HTTPTransport
            transport = make(verify=options["verify"])
        try:
            client = httpx.AsyncClient if is_async else httpx.Client
            self.client = client(**options, transport=transport)  # type: ignore[arg-type]
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise ClientConfigError(
                f"{self._url} cannot be reached by the proxy of the environment: "
                f"{hide_password(str(error))} Unset {' and '.join(proxy_variables())}, or name a "
                "proxy with http://."
            ) from None

    def close(self) -> Any:
        """Close the connections; of an asynchronous client, return an awaitable."""
        if isinstance(self.client, httpx.AsyncClient):
            return self.client.aclose()
        return self.client.close()

    def predict(self, images: Sequence[bytes]) -> Call[list[ImagePrediction]]:
        """Return the call that predicts encoded images."""
        if len(images) == 1:
            headers = {"Content-Type": "application/octet-stream"}
            post = partial(self.client.post, "/predict", content=images[0], headers=headers)
        else:
            files = [("images", (str(n), image)) for n, image in enumerate(images)]
            post = partial(self.client.post, "/predict/batch", files=files)
        return Call(post, self._parse_predictions)

    def feedback(self, labels: Sequence[Label]) -> Call[int]:
        """Return the call that stores labels, and tells how many were accepted."""
        body = {"labels": [asdict(label) for label in labels]}
        return Call(partial(self.client.post, "/feedback", json=body), self._parse_accepted)

    def model_info(self) -> Call[ModelInfo]:
        """Return the call that describes the model."""
        return Call(partial(self.client.get, "/model-info"), self._parse_model_info)

    def is_ready(self) -> Call[bool]:
        """Return the call that tells whether the service is ready."""
        return Call(partial(self.client.get, "/readyz"), lambda response: response.is_success)

    def translate(self, error: Exception, *, is_idempotent: bool) -> ServiceError:
        """Return a lost or failed connection as what the clients raise."""
        reason = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
        is_tls = _is_caused_by(error, ssl.SSLError)
        if self._proxy_variables:
            reason += f" (the environment names a proxy: {', '.join(self._proxy_variables)})"
        if _is_caused_by(error, ssl.SSLCertVerificationError):
            reason += ". If your own CA signed it, name the CA's file (ca; run.py: --ca)"
        is_unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        is_retryable = not is_tls and (is_unsent or is_idempotent)
        return ServiceError(f"{self._url} cannot be reached: {reason}", is_retryable=is_retryable)

    def _parse_predictions(self, response: httpx.Response) -> list[ImagePrediction]:
        body = self._parse(response)
        try:
            common: dict[str, Any] = {"model": body["model"], "version": body["version"]}
            common["cached"] = body.get("cached", False)
            return [parse_prediction(row, common) for row in body["predictions"]]
        except (AttributeError, KeyError, TypeError) as error:
            raise self._unknown_service(error) from None

    def _parse_accepted(self, response: httpx.Response) -> int:
        body = self._parse(response)
        try:
            return int(body["accepted"])
        except (KeyError, TypeError) as error:
            raise self._unknown_service(error) from None

    def _parse_model_info(self, response: httpx.Response) -> ModelInfo:
        body = self._parse(response)
        try:
            shape = body["input"]
            return ModelInfo(
                body["model"],
                body["version"],
                tuple(body["classes"]),
                (shape["height"], shape["width"], shape["channels"]),
                body,
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise self._unknown_service(error) from None

    def _parse(self, response: httpx.Response) -> Any:
        """Return the JSON of a response.

        Raises:
            ServiceError: The service rejected the request.
        """
        try:
            body = response.json()
        except ValueError:
            body = {}
        if response.is_success:
            return body
        problem = body if isinstance(body, dict) else {}
        raise rejection_error(
            self._url,
            response.status_code,
            {"detail": response.reason_phrase, **problem},
            response.headers,
            is_idempotent=response.request.method == "GET",
        )

    def _unknown_service(self, error: Exception) -> ServiceError:
        return ServiceError(f"{self._url} is not a prediction service ({error!r}).")


def _check_url(url: str, *, has_transport: bool) -> str:
    """Return the host of a URL.

    Raises:
        ClientConfigError: The URL is malformed.
    """
    if not has_transport and not url.lower().startswith(("http://", "https://")):
        raise ClientConfigError(
            f"{hide_password(url)} is not a valid URL: it begins with http://, https://, grpc:// "
            "or grpcs://, such as http://127.0.0.1:3000."
        )
    try:
        return httpx.URL(url).host
    except httpx.InvalidURL as error:
        raise ClientConfigError(f"{hide_password(url)} is not a valid URL: {error}.") from None


def _tls_context(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=read_ca(ca))
    except ssl.SSLError as error:
        raise ClientConfigError(f"The CA certificate {ca} cannot be used: {error}.") from None


def _is_caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False
