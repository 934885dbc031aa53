"""The calls of a service over gRPC: the Open Inference Protocol v2, and the output ``prediction``.

``open_inference.proto`` and ``open_inference_messages.py`` are links to the service's own.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio

from cv_factory_client.addresses import hide_password, is_loopback
from cv_factory_client.calls import Call
from cv_factory_client.credentials import check_api_key, read_ca
from cv_factory_client.errors import ClientConfigError, ServiceError
from cv_factory_client.open_inference_messages import SERVICE, message_class
from cv_factory_client.rejections import rejection_error
from cv_factory_client.results import ImagePrediction, Label, ModelInfo, parse_prediction

_LENGTH_BYTES = 4
_PORTS = {"grpc": 80, "grpcs": 443}
#: HTTP's status of errors whose metadata has none; of a lost connection there is none.
_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 413,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.UNIMPLEMENTED: 501,
}
_RECONNECT_MS = 100


class GrpcCalls:
    """Calls over gRPC."""

    errors: tuple[type[Exception], ...] = (grpc.RpcError,)

    def __init__(
        self, url: str, api_key: str | None, timeout: float, ca: Path | None, *, is_async: bool
    ) -> None:
        """Open a channel; it connects with the first call.

        Raises:
            ClientConfigError: The URL is malformed, or the key or the CA certificate cannot be
                used.
        """
        self._url = hide_password(url)
        self._host, self._target, self._is_tls = _parse_url(url)
        key = check_api_key(api_key)
        self._metadata = (("authorization", f"Bearer {key}"),) if key else ()
        self._timeout = timeout
        self._ca = read_ca(ca).encode() if ca else None
        self._api: Any = grpc.aio if is_async else grpc
        if not is_async:
            # Here, so that threads that call at once share one.
            _ = self._channel

    @cached_property
    def _channel(self) -> Any:
        """Channel; one of ``grpc.aio`` is of the event loop that runs now."""
        options = [
            ("grpc.max_receive_message_length", -1),
            # Attempts are limited by the client, which waits longer.
            ("grpc.initial_reconnect_backoff_ms", _RECONNECT_MS),
            ("grpc.min_reconnect_backoff_ms", _RECONNECT_MS),
        ]
        if is_loopback(self._host):
            options.append(("grpc.enable_http_proxy", 0))
        if not self._is_tls:
            return self._api.insecure_channel(self._target, options)
        return self._api.secure_channel(
            self._target, grpc.ssl_channel_credentials(self._ca), options
        )

    def close(self) -> Any:
        """Close the channel; of an asynchronous client, return an awaitable."""
        return self._channel.close()

    def predict(self, images: Sequence[bytes]) -> Call[list[ImagePrediction]]:
        """Return the call that predicts encoded images."""
        tensor = {"name": "image", "datatype": "BYTES", "shape": [len(images)]}
        request = message_class("ModelInferRequest")(
            inputs=[{**tensor, "contents": {"bytes_contents": images}}],
            outputs=[{"name": "prediction"}],
        )
        return Call(self._method("ModelInfer", request), self._parse_predictions)

    def feedback(self, labels: Sequence[Label]) -> Call[int]:
        """Refuse: labels are given over HTTP.

        Raises:
            ClientConfigError: Always.
        """
        raise ClientConfigError(
            "Labels are given over HTTP: create the client with the http:// or https:// address."
        )

    def model_info(self) -> Call[ModelInfo]:
        """Return the call that describes the model."""
        request = message_class("ModelMetadataRequest")()
        return Call(self._method("ModelMetadata", request), self._parse_model_info)

    def is_ready(self) -> Call[bool]:
        """Return the call that tells whether the service is ready."""
        request = message_class("ServerReadyRequest")()
        return Call(self._method("ServerReady", request), lambda response: bool(response.ready))

    def translate(self, error: Exception, *, is_idempotent: bool) -> ServiceError:
        """Return a lost connection or a rejection as what the clients raise."""
        failure: Any = error
        code, detail = failure.code(), failure.details() or failure.code().name
        metadata = _read_metadata(failure)
        problem: Any = {"type": metadata.get("problem-type", ""), "detail": detail}
        problem["status"] = metadata.get("problem-status", _STATUS.get(code))
        if detail.startswith("{"):
            # The proxy's own answers: what it sends over HTTP, as text.
            with suppress(ValueError):
                problem = json.loads(detail)
        if problem.get("status") is None:
            return self._connection_error(code, detail, is_idempotent=is_idempotent)
        return rejection_error(
            self._url, int(problem["status"]), problem, metadata, is_idempotent=is_idempotent
        )

    def _connection_error(
        self, code: grpc.StatusCode, detail: str, *, is_idempotent: bool
    ) -> ServiceError:
        reason = detail
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            reason = f"no answer within {self._timeout:g} s"
        is_tls = "handshake" in reason.lower()
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            reason += ". If your own CA signed it, name the CA's file (ca; run.py: --ca)"
        # gRPC gives no other sign of a request that was not sent.
        is_unsent = detail.startswith(("failed to connect", "DNS resolution failed"))
        return ServiceError(
            f"{self._url} cannot be reached: {reason}",
            is_retryable=not is_tls and (is_unsent or is_idempotent),
        )

    def _method(self, name: str, request: Any) -> Any:
        call = self._channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=message_class(f"{name}Response").FromString,
        )
        return partial(call, request, timeout=self._timeout, metadata=self._metadata)

    def _parse_predictions(self, response: Any) -> list[ImagePrediction]:
        common = {"model": response.model_name, "version": response.model_version}
        common["cached"] = response.parameters["cached"].bool_param
        try:
            rows = [json.loads(text) for text in _read_texts(response)]
            return [parse_prediction(row, common) for row in rows]
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise self._unknown_service(error) from None

    def _parse_model_info(self, response: Any) -> ModelInfo:
        details = {
            "platform": response.platform,
            "inputs": {tensor.name: tuple(tensor.shape) for tensor in response.inputs},
            "outputs": {tensor.name: tuple(tensor.shape) for tensor in response.outputs},
        }
        version = ", ".join(response.versions)
        try:
            _, height, width, channels = details["inputs"]["pixels"]
        except (KeyError, ValueError) as error:
            raise self._unknown_service(error) from None
        return ModelInfo(response.name, version, (), (height, width, channels), details)

    def _unknown_service(self, error: Exception) -> ServiceError:
        return ServiceError(f"{self._url} is not a prediction service ({error!r}).")


def _read_metadata(failure: Any) -> dict[str, str]:
    """Return the metadata of a failed call by name, in lower case."""
    pairs = [*(failure.initial_metadata() or ()), *(failure.trailing_metadata() or ())]
    return {str(name): value for name, value in pairs if isinstance(value, str)}


def _read_texts(response: Any) -> list[bytes]:
    """Return the elements of the only output, which is one of BYTES."""
    if not response.raw_output_contents:
        return list(response.outputs[0].contents.bytes_contents)
    data, texts, start = response.raw_output_contents[0], [], 0
    while start < len(data):
        first = start + _LENGTH_BYTES
        start = first + int.from_bytes(data[start:first], "little")
        texts.append(data[first:start])
    return texts


def _parse_url(url: str) -> tuple[str, str, bool]:
    """Return host, target and whether the connection is encrypted.

    Raises:
        ClientConfigError: The URL is malformed, or has more than host and port.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    except ValueError as error:
        raise ClientConfigError(f"{hide_password(url)} is not a valid URL: {error}.") from None
    if not host or "@" in parts.netloc or parts.path.strip("/") or parts.query:
        raise ClientConfigError(
            f"{hide_password(url)} is not a valid URL: it is grpc://HOST:PORT or, with TLS, "
            "grpcs://HOST:PORT."
        )
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return host, target, parts.scheme == "grpcs"
