"""Open Inference Protocol v2 over REST, with Triton's binary tensors and classification."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, FailFast, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import cv_factory
from cv_factory.config.problems import describe
from cv_factory.config.serving import LimitsConfig
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.inference_engine import ScoredImage
from cv_factory.serving.json_encoder import encode_json
from cv_factory.serving.middleware import RequestHandler, get_request_context
from cv_factory.serving.prediction_service import InputImage, PredictionService
from cv_factory.serving.problem_details import ProblemError
from cv_factory.serving.protocols.open_inference import (
    EXTENSIONS,
    IMAGE,
    MAX_TENSORS,
    PLATFORM,
    SERVER_NAME,
    InputTensor,
    OpenInferenceModel,
    RequestedOutput,
    invalid_tensor,
)
from cv_factory.serving.request_parsing import read_body, read_caller
from cv_factory.serving.response_cache import allows_cached_answer

#: Path below which all routes, and all errors, are of this protocol.
PREFIX = "/v2"
#: Templates of the served model's path, and of its version's.
MODEL = f"{PREFIX}/models/{{model}}"
VERSION = f"{MODEL}/versions/{{version}}"
#: Header with the length of the JSON that binary tensors follow; 0 where the body is one image.
LENGTH_HEADER = "inference-header-content-length"
_LENGTH = re.compile(r"[0-9]{1,19}")


class _Parameters(BaseModel):
    """Parameters that have a meaning here; others, such as ``priority``, are ignored."""

    binary_data: bool | None = None
    binary_data_output: bool = False
    binary_data_size: Annotated[int, Field(ge=0)] | None = None
    classification: int = 0
    shared_memory_region: str | None = None


class _Tensor(BaseModel):
    name: str
    parameters: _Parameters = _Parameters()


class _Input(_Tensor):
    datatype: str
    shape: Annotated[list[Annotated[int, Field(strict=True)]], FailFast()]
    data: list[Any] | None = None


class _Request(BaseModel):
    id: str | None = None
    parameters: _Parameters = _Parameters()
    inputs: Annotated[list[_Input], FailFast(), Field(max_length=MAX_TENSORS)]
    outputs: Annotated[list[_Tensor], FailFast(), Field(max_length=MAX_TENSORS)] = []


@dataclass(frozen=True, slots=True)
class Inference:
    """Request for a prediction.

    Attributes:
        id: Id that the client gave it; None if it gave none.
        images: At least one.
        outputs: Outputs of the answer.
        are_binary: Whether each of them is binary in the answer.
    """

    id: str | None
    images: list[InputImage]
    outputs: Sequence[RequestedOutput]
    are_binary: Sequence[bool]


class OpenInferenceRest:
    """Routes of the protocol for one served version."""

    def __init__(self, bundle: Bundle, predictions: PredictionService) -> None:
        self._model = OpenInferenceModel(bundle)
        self._limits = bundle.serving.limits
        self._predictions = predictions

    def routes(self, protect: Callable[[RequestHandler], RequestHandler]) -> list[Route]:
        """Return the routes.

        Args:
            protect: Returns a handler that refuses who may not see the description of the model.
        """
        metadata = protect(self._model_metadata)
        return [
            # The text of the specification has the one, its OpenAPI description the other.
            Route(PREFIX, self._server_metadata),
            Route(f"{PREFIX}/", self._server_metadata),
            Route(f"{PREFIX}/health/live", self._server_live),
            Route(f"{PREFIX}/health/ready", self._server_ready),
            *(
                route
                for path in (MODEL, VERSION)
                for route in (
                    Route(f"{path}/infer", self._infer, methods=["POST"]),
                    Route(f"{path}/ready", self._model_ready),
                    Route(path, metadata),
                )
            ),
        ]

    def paths(self) -> dict[str, str]:
        """Return the templates of the served version's paths, by path."""
        return {
            template.format(model=self._model.name, version=self._model.version): template
            for path in (MODEL, VERSION)
            for template in (path, f"{path}/infer", f"{path}/ready")
        }

    async def _infer(self, request: Request) -> Response:
        inference: Inference | None = None

        async def read_images() -> list[InputImage]:
            nonlocal inference
            self._check_model(request)
            inference = await _read_inference(request, self._model, self._limits)
            return inference.images

        results = await self._predictions.predict(
            read_caller(request),
            read_images,
            get_request_context(request.scope),
            may_use_cache=allows_cached_answer(request.headers),
        )
        assert inference is not None
        head, tensors = encode_answer(self._model, inference, results)
        headers = self._predictions.cache.headers(results)
        if not tensors:
            return Response(head, headers=headers, media_type="application/json")
        headers[LENGTH_HEADER] = str(len(head))
        return Response(head + tensors, headers=headers, media_type="application/octet-stream")

    async def _server_metadata(self, _request: Request) -> Response:
        return JSONResponse(
            {"name": SERVER_NAME, "version": cv_factory.__version__, "extensions": EXTENSIONS}
        )

    async def _model_metadata(self, request: Request) -> Response:
        self._check_model(request)
        return JSONResponse(
            {
                "name": self._model.name,
                "versions": [self._model.version],
                "platform": PLATFORM,
                "inputs": [asdict(tensor) for tensor in self._model.inputs],
                "outputs": [asdict(tensor) for tensor in self._model.outputs],
            }
        )

    async def _server_live(self, _request: Request) -> Response:
        return JSONResponse({"live": True})

    async def _server_ready(self, _request: Request) -> Response:
        await self._check_ready()
        return JSONResponse({"ready": True})

    async def _model_ready(self, request: Request) -> Response:
        self._check_model(request)
        await self._check_ready()
        return JSONResponse({"name": self._model.name, "ready": True})

    def _check_model(self, request: Request) -> None:
        self._model.check_model(request.path_params["model"], request.path_params.get("version"))

    async def _check_ready(self) -> None:
        """Predict the golden samples.

        Raises:
            ProblemError: 503: they are not predicted as at export.
        """
        if not await self._predictions.is_ready():
            raise ProblemError(
                503, "not-ready", "the golden samples are predicted differently than at export"
            )


def error_response(error: ProblemError) -> Response:
    """Return an error in the form of this protocol."""
    return JSONResponse({"error": str(error)}, error.status, error.headers)


def parse_inference(body: bytes, head_length: int | None, model: OpenInferenceModel) -> Inference:
    """Parse the body of a request.

    Args:
        body: JSON, after which binary tensors follow.
        head_length: Length of the JSON, 0 if the body is one image; None if it is all of the body.
        model: Knows the tensors of the served version.

    Raises:
        ProblemError: The body is malformed, or a tensor is not as the metadata says.
    """
    if head_length == 0:
        outputs = model.select_outputs([])
        images = model.parse_images([InputTensor(IMAGE, "BYTES", (1,), [body])])
        return Inference(None, images, outputs, [True] * len(outputs))
    try:
        # In a third of the time that pydantic's own parser needs for arrays of pixels.
        content = orjson.loads(body if head_length is None else body[:head_length])
        request = _Request.model_validate(content)
    except orjson.JSONDecodeError as error:
        raise ProblemError(400, "json", f"the body is not valid JSON: {error}") from None
    except ValidationError as error:
        raise ProblemError(400, "json", _describe_first(error)) from None
    for tensor in chain[_Tensor](request.inputs, request.outputs):
        if tensor.parameters.shared_memory_region is not None:
            raise invalid_tensor(
                f"{tensor.name[:80]!r}: shared memory is not supported; send the data in the body"
            )
    outputs = model.select_outputs(
        [RequestedOutput(o.name, o.parameters.classification) for o in request.outputs]
    )
    default = request.parameters.binary_data_output
    are_binary = [
        default if o.parameters.binary_data is None else o.parameters.binary_data
        for o in request.outputs
    ] or [default] * len(outputs)
    tensors = _read_tensors(request.inputs, body[head_length:] if head_length else b"")
    return Inference(request.id, model.parse_images(tensors), outputs, are_binary)


def encode_answer(
    model: OpenInferenceModel, inference: Inference, results: Sequence[ScoredImage]
) -> tuple[bytes, bytes]:
    """Return the JSON of an answer, and its binary tensors, which follow it."""
    outputs, tensors = [], []
    for tensor, is_binary in zip(
        model.build_outputs(results, inference.outputs), inference.are_binary, strict=True
    ):
        output: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        if is_binary:
            tensors.append(tensor.to_bytes())
            output["parameters"] = {"binary_data_size": len(tensors[-1])}
        else:
            output["data"] = tensor.to_list()
        outputs.append(output)
    answer = {
        **({} if inference.id is None else {"id": inference.id}),
        "model_name": model.name,
        "model_version": model.version,
        "parameters": model.build_parameters(results),
        "outputs": outputs,
    }
    return encode_json(answer), b"".join(tensors)


async def _read_inference(
    request: Request, model: OpenInferenceModel, limits: LimitsConfig
) -> Inference:
    length = request.headers.get(LENGTH_HEADER)
    if length is not None and not _LENGTH.fullmatch(length):
        raise invalid_tensor(f"the header {LENGTH_HEADER} is {length[:20]!r}: it must be a number")
    body = await read_body(request, limits)
    head_length = None if length is None else int(length)
    if head_length is not None and head_length > len(body):
        raise invalid_tensor(
            f"the header {LENGTH_HEADER} is {head_length}, and the body has {len(body)} bytes"
        )
    return parse_inference(body, head_length, model)


def _read_tensors(inputs: Sequence[_Input], binary: bytes) -> list[InputTensor]:
    """Return the tensors of a request.

    Args:
        inputs: The inputs.
        binary: Binary data of those that have no other.

    Raises:
        ProblemError: 400: an input has no data, or the binary data has another length.
    """
    tensors, end = [], 0
    for tensor in inputs:
        data: bytes | list[Any] | None = tensor.data
        if (size := tensor.parameters.binary_data_size) is not None:
            data = binary[end : end + size]
            end += size
        if data is None:
            raise invalid_tensor(
                f"input {tensor.name[:80]!r} has no data: send data, or binary data and the "
                "parameter binary_data_size"
            )
        tensors.append(InputTensor(tensor.name, tensor.datatype, tensor.shape, data))
    if end != len(binary):
        raise invalid_tensor(
            f"{len(binary)} bytes of binary data follow the JSON, and the inputs name {end}: see "
            f"the header {LENGTH_HEADER} and the parameter binary_data_size"
        )
    return tensors


def _describe_first(error: ValidationError) -> str:
    """Return the first problem of a body's JSON."""
    problem = error.errors(include_input=False)[0]
    place = ".".join(map(str, problem["loc"])) or "the body"
    is_no_object = problem["type"] == "model_type"
    return f"{place}: {'must be an object' if is_no_object else describe(problem)}"
