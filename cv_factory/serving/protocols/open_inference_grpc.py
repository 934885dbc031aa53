"""Open Inference Protocol v2 over gRPC, with Triton's ``ModelStreamInfer``."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import count
from typing import Any

import grpc

import cv_factory
from cv_factory.serving.auth.access import AccessControl
from cv_factory.serving.bundle import Bundle
from cv_factory.serving.inference_engine import ScoredImage
from cv_factory.serving.prediction_service import InputImage, PredictionService
from cv_factory.serving.problem_details import ProblemError, overloaded_error
from cv_factory.serving.protocols.grpc_calls import Call, record_call
from cv_factory.serving.protocols.open_inference import (
    EXTENSIONS,
    MAX_TENSORS,
    PLATFORM,
    SERVER_NAME,
    InputTensor,
    OpenInferenceModel,
    RequestedOutput,
    invalid_tensor,
)
from cv_factory.serving.protocols.open_inference_messages import SERVICE, message_class
from cv_factory.serving.request_log import RequestContext, RequestLog
from cv_factory.serving.response_cache import allows_cached_answer

Answer = Callable[[Call], Awaitable[Any]]
_STREAM = "ModelStreamInfer"
#: Names of the fields that hold the elements of a tensor in a message, by datatype.
_CONTENTS = {"BYTES": "bytes_contents", "UINT8": "uint_contents", "FP32": "fp32_contents"}


class OpenInferenceGrpc:
    """Methods of the protocol for one served version."""

    def __init__(
        self,
        bundle: Bundle,
        predictions: PredictionService,
        access: AccessControl,
        log: RequestLog,
    ) -> None:
        self._model = OpenInferenceModel(bundle)
        self._predictions = predictions
        self._access = access
        self._log = log
        self._protects_metadata = "model_info" in bundle.serving.access.protect
        self._body_seconds = bundle.serving.limits.body_seconds
        self._window = bundle.serving.batching.max_batch
        self._max_streams = bundle.serving.limits.max_requests
        self._n_streams = 0
        self._random = random.Random()
        self._is_stopping = asyncio.Event()

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the methods; they read their messages themselves, so as to bound the time."""
        unary: dict[str, Answer] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
        }
        handlers = {
            name: grpc.stream_unary_rpc_method_handler(self._unary_handler(name, answer))
            for name, answer in unary.items()
        }
        handlers[_STREAM] = grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def stop_streams(self) -> None:
        """End each stream when the requests that it has are answered."""
        self._is_stopping.set()

    def _unary_handler(self, name: str, answer: Answer) -> Callable[..., Awaitable[bytes]]:
        async def handle(_messages: Any, context: Any) -> bytes:
            call = Call.open(context, f"/{SERVICE}/{name}", self._random)
            try:
                with record_call(call, self._log):
                    response = (await answer(call)).SerializeToString()
            except ProblemError as problem:
                await call.abort(problem)
            context.set_trailing_metadata((("x-request-id", call.record.request_id),))
            return bytes(response)

        return handle

    async def _server_live(self, _call: Call) -> Any:
        return message_class("ServerLiveResponse")(live=True)

    async def _server_ready(self, _call: Call) -> Any:
        return message_class("ServerReadyResponse")(ready=await self._predictions.is_ready())

    async def _model_ready(self, call: Call) -> Any:
        request = await call.read(message_class("ModelReadyRequest"), self._body_seconds)
        self._model.check_model(request.name, request.version)
        return message_class("ModelReadyResponse")(ready=await self._predictions.is_ready())

    async def _server_metadata(self, _call: Call) -> Any:
        return message_class("ServerMetadataResponse")(
            name=SERVER_NAME, version=cv_factory.__version__, extensions=EXTENSIONS
        )

    async def _model_metadata(self, call: Call) -> Any:
        if self._protects_metadata:
            principal = await self._access.identify(call.caller.credential, "admin")
            call.record.principal_name = principal.name
        request = await call.read(message_class("ModelMetadataRequest"), self._body_seconds)
        self._model.check_model(request.name, request.version)
        return message_class("ModelMetadataResponse")(
            name=self._model.name,
            versions=[self._model.version],
            platform=PLATFORM,
            inputs=[asdict(tensor) for tensor in self._model.inputs],
            outputs=[asdict(tensor) for tensor in self._model.outputs],
        )

    async def _model_infer(self, call: Call) -> Any:
        request: Any = None
        outputs: Sequence[RequestedOutput] = ()

        async def read_images() -> list[InputImage]:
            nonlocal request, outputs
            request = await call.read(message_class("ModelInferRequest"), self._body_seconds)
            self._model.check_model(request.model_name, request.model_version)
            _check_size(request)
            outputs = self._model.select_outputs([_parse_output(o) for o in request.outputs])
            return self._model.parse_images(_parse_inputs(request))

        results = await self._predictions.predict(
            call.caller,
            read_images,
            call.record,
            may_use_cache=allows_cached_answer(call.headers),
        )
        return self._build_response(request, outputs, results)

    def _build_response(
        self, request: Any, outputs: Sequence[RequestedOutput], results: Sequence[ScoredImage]
    ) -> Any:
        """Return the answer; its tensors are binary if those of the request are."""
        response = message_class("ModelInferResponse")(
            model_name=self._model.name, model_version=self._model.version, id=request.id
        )
        for name, value in self._model.build_parameters(results).items():
            choice = "bool_param" if isinstance(value, bool) else "string_param"
            setattr(response.parameters[name], choice, value)
        for tensor in self._model.build_outputs(results, outputs):
            output = response.outputs.add(
                name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
            )
            if request.raw_input_contents:
                response.raw_output_contents.append(tensor.to_bytes())
            else:
                elements = tensor.to_list()
                if tensor.datatype == "BYTES":
                    elements = [text.encode(errors="surrogateescape") for text in elements]
                getattr(output.contents, _CONTENTS[tensor.datatype]).extend(elements)
        return response

    async def _stream(self, _messages: Any, context: Any) -> None:
        """Answer the requests of a stream in their order, some of them at a time."""
        stream = Call.open(context, f"/{SERVICE}/{_STREAM}", self._random)
        try:
            await self._admit_stream(stream)
        except ProblemError as problem:
            stream.fail(problem)
            stream.write_record(self._log)
            await stream.abort(problem)
        answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(self._window)
        self._n_streams += 1
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_write_answers(context, answers))
                async for call in self._read_stream(stream):
                    await answers.put(tasks.create_task(self._answer_in_stream(call)))
                await answers.put(None)
        except* grpc.aio.InternalError:
            pass  # the client is gone
        finally:
            self._n_streams -= 1
        if self._is_stopping.is_set():
            await stream.abort(ProblemError(503, "stopping", "the service stops; connect again"))

    async def _admit_stream(self, stream: Call) -> None:
        """Authenticate who opens a stream.

        Raises:
            ProblemError: They may not, or there are too many streams.
        """
        self._access.check_address_rate_limit(stream.caller.address)
        principal = await self._access.identify(stream.caller.credential, "predict")
        stream.record.principal_name = principal.name
        if self._n_streams >= self._max_streams:
            raise overloaded_error()

    async def _read_stream(self, stream: Call) -> AsyncIterator[Call]:
        """Yield the requests of a stream until it ends or the service stops."""
        stop = asyncio.create_task(self._is_stopping.wait())
        read = None
        try:
            for number in count(1):
                read = asyncio.ensure_future(stream.context.read())
                await asyncio.wait((read, stop), return_when=asyncio.FIRST_COMPLETED)
                if not read.done() or (message := read.result()) is grpc.aio.EOF:
                    return
                record = RequestContext(f"{stream.record.request_id}-{number}")
                yield replace(stream, record=record, message=message, start=time.perf_counter())
        finally:
            stop.cancel()
            if read is not None:
                read.cancel()

    async def _answer_in_stream(self, call: Call) -> bytes:
        response = message_class("ModelStreamInferResponse")()
        try:
            with record_call(call, self._log):
                response.infer_response.CopyFrom(await self._model_infer(call))
        except ProblemError as problem:
            response.error_message = str(problem)
            with suppress(ProblemError):  # the message may be none
                request = await call.read(message_class("ModelInferRequest"), self._body_seconds)
                response.infer_response.id = request.id
        return bytes(response.SerializeToString())


async def _write_answers(context: Any, answers: asyncio.Queue[asyncio.Task[bytes] | None]) -> None:
    while (answer := await answers.get()) is not None:
        await context.write(await answer)


def _check_size(request: Any) -> None:
    """Refuse a request with many tensors, each of which costs more than its bytes.

    Raises:
        ProblemError: 400.
    """
    for kind, tensors in (("inputs", request.inputs), ("outputs", request.outputs)):
        if len(tensors) > MAX_TENSORS:
            raise invalid_tensor(f"there are {len(tensors)} {kind}; at most {MAX_TENSORS} may be")


def _parse_inputs(request: Any) -> list[InputTensor]:
    """Return the inputs of a request.

    Raises:
        ProblemError: 400: binary data is missing or left over, or is in shared memory.
    """
    binary = request.raw_input_contents
    if binary and len(binary) != len(request.inputs):
        raise invalid_tensor(
            f"there are {len(binary)} raw_input_contents for {len(request.inputs)} inputs"
        )
    tensors = []
    for number, tensor in enumerate(request.inputs):
        if "shared_memory_region" in tensor.parameters:
            raise invalid_tensor(
                f"input {tensor.name[:80]!r} is in shared memory, which is not supported: send it "
                "in raw_input_contents"
            )
        contents = getattr(tensor.contents, _CONTENTS.get(tensor.datatype, _CONTENTS["BYTES"]))
        data = binary[number] if binary else contents
        tensors.append(InputTensor(tensor.name, tensor.datatype, tuple(tensor.shape), data))
    return tensors


def _parse_output(output: Any) -> RequestedOutput:
    if "shared_memory_region" in output.parameters:
        raise invalid_tensor(
            f"output {output.name[:80]!r} cannot be written to shared memory: request it without"
        )
    return RequestedOutput(output.name, output.parameters["classification"].int64_param)
