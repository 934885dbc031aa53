"""Tensors and metadata of the Open Inference Protocol v2, as REST and gRPC share them.

It knows neither HTTP nor protobuf: their modules hand over input tensors and encode output tensors.
Specification: https://github.com/kserve/open-inference-protocol; the extensions are Triton's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cv_factory.serving.bundle import Bundle
from cv_factory.serving.inference_engine import ScoredImage
from cv_factory.serving.json_encoder import encode_json
from cv_factory.serving.postprocessors import round_unfamiliarity
from cv_factory.serving.postprocessors.ranked import DECIMALS
from cv_factory.serving.prediction_service import InputImage
from cv_factory.serving.problem_details import ProblemError
from cv_factory.serving.request_parsing import check_image_count, decode_base64

SERVER_NAME = "cv-factory"
#: Name of the format among the platforms of the specification.
PLATFORM = "onnx_onnxv1"
EXTENSIONS = ("binary_tensor_data", "classification")
#: The inputs, of which a request has one.
IMAGE, PIXELS = "image", "pixels"
PROBABILITIES, LABEL, UNFAMILIARITY, FEATURES, PREDICTION = (
    "probabilities", "label", "unfamiliarity", "features", "prediction",
)  # fmt: skip
#: Outputs that are returned on request alone.
_ON_REQUEST = (FEATURES, PREDICTION)
#: Maximum number of inputs, and of outputs, in a request.
MAX_TENSORS = 16
_LENGTH_BYTES = 4
_FP32 = np.dtype("<f4")

Datatype = Literal["BYTES", "FP32", "UINT8"]


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """Name, type and shape of a tensor; -1 is the number of images."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InputTensor:
    """Tensor of a request.

    Attributes:
        name: As the client sent it, like the other attributes.
        datatype: Name of its type.
        shape: Its dimensions.
        data: Binary (row-major; an element of BYTES is its length, 4 bytes little-endian, and its
            bytes), or a flat or nested list of elements: integers, bytes, or text in base64.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    data: bytes | Sequence[Any]


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """Output that a request names.

    Attributes:
        name: Name of the output.
        n_classes: Number of classes of the extension ``classification``; 0 for the tensor itself.
    """

    name: str
    n_classes: int = 0


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """Tensor of an answer.

    Attributes:
        name: Name of the output.
        values: float64 of the tensor's shape for FP32, so that text has the digits of other routes;
            text (dtype object) for BYTES.
    """

    name: str
    values: npt.NDArray[Any]

    @property
    def datatype(self) -> Datatype:
        """Type of the elements."""
        return "BYTES" if self.values.dtype == object else "FP32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions; the first one is the number of images."""
        return self.values.shape

    def to_list(self) -> list[Any]:
        """Return the elements, row-major and flat, as numbers or text."""
        elements: list[Any] = self.values.ravel().tolist()
        return elements

    def to_bytes(self) -> bytes:
        """Return the elements in binary, as in ``InputTensor.data``."""
        if self.datatype == "FP32":
            return self.values.astype(_FP32).tobytes()
        # A class is named after its folder, whose name may be no UTF-8.
        encoded = [text.encode(errors="surrogateescape") for text in self.to_list()]
        return b"".join(len(e).to_bytes(_LENGTH_BYTES, "little") + e for e in encoded)


class OpenInferenceModel:
    """Served version in the terms of the protocol.

    Attributes:
        name: Name of the registered model.
        version: Its version.
        class_names: Names of the columns of ``probabilities``.
        inputs: Metadata of the inputs; a request has one of them.
        outputs: Metadata of the outputs.
    """

    def __init__(self, bundle: Bundle) -> None:
        contract = bundle.predictor.contract
        self.name, self.version = bundle.model_name, bundle.version
        self._max_images = bundle.serving.limits.max_images
        self._input_shape = contract.input_shape
        self.class_names = contract.class_names
        self.inputs = (
            TensorMetadata(IMAGE, "BYTES", (-1,)),
            TensorMetadata(PIXELS, "UINT8", (-1, *contract.input_shape)),
        )
        scores = contract.familiarity is not None
        self.outputs = (
            TensorMetadata(PROBABILITIES, "FP32", (-1, len(contract.class_names))),
            TensorMetadata(LABEL, "BYTES", (-1,)),
            *([TensorMetadata(UNFAMILIARITY, "FP32", (-1,))] if scores else []),
            TensorMetadata(FEATURES, "FP32", (-1, contract.n_features)),
            # The JSON that ``/predict`` returns: postprocessed, and with its id.
            TensorMetadata(PREDICTION, "BYTES", (-1,)),
        )

    def check_model(self, name: str, version: str | None = None) -> None:
        """Refuse another model or version.

        Args:
            name: Of the model that a request is for; empty for the one that is served.
            version: Its version; None or empty for the one that is served.

        Raises:
            ProblemError: 404.
        """
        if name and name != self.name:
            raise ProblemError(
                404, "not-found",
                f"there is no model {name[:80]!r} here: this service has {self.name!r}",
            )  # fmt: skip
        if version and version != self.version:
            raise ProblemError(
                404, "not-found",
                f"version {version[:80]!r} of {self.name!r} is not served here: this service has "
                f"version {self.version!r}",
            )  # fmt: skip

    def parse_images(self, inputs: Sequence[InputTensor]) -> list[InputImage]:
        """Return the images of a request, at least one.

        Raises:
            ProblemError: 400: a tensor is not as the metadata says; 413: there are too many images;
                422: text is not base64.
        """
        if len(inputs) != 1:
            names = " or ".join(repr(metadata.name) for metadata in self.inputs)
            raise invalid_tensor(f"send one input, {names}; the request has {len(inputs)}")
        tensor = inputs[0]
        expected = next((m for m in self.inputs if m.name == tensor.name), None)
        if expected is None:
            raise invalid_tensor(_unknown("input", tensor.name, self.inputs))
        if tensor.datatype != expected.datatype:
            raise invalid_tensor(
                f"input {tensor.name!r} has datatype {tensor.datatype[:20]!r}; it must be "
                f"{expected.datatype}"
            )
        self._check_shape(tensor, expected)
        check_image_count(tensor.shape[0], self._max_images)
        return _parse_encoded(tensor) if tensor.name == IMAGE else self._parse_pixels(tensor)

    def select_outputs(self, requested: Sequence[RequestedOutput]) -> Sequence[RequestedOutput]:
        """Return the outputs of an answer: by default all but those on request alone.

        Raises:
            ProblemError: 400: there is no such output, or it cannot be classified.
        """
        if not requested:
            return [RequestedOutput(m.name) for m in self.outputs if m.name not in _ON_REQUEST]
        for output in requested:
            if all(output.name != metadata.name for metadata in self.outputs):
                raise invalid_tensor(_unknown("output", output.name, self.outputs))
            if output.n_classes < 0 or (output.n_classes and output.name != PROBABILITIES):
                raise invalid_tensor(
                    f"output {output.name!r} cannot be returned as {output.n_classes} classes: "
                    f"request one or more of {PROBABILITIES!r}"
                )
        return requested

    def build_outputs(
        self, results: Sequence[ScoredImage], selection: Sequence[RequestedOutput]
    ) -> list[OutputTensor]:
        """Return the selected outputs of some predictions."""
        return [OutputTensor(s.name, self._build_values(results, s)) for s in selection]

    def build_parameters(self, results: Sequence[ScoredImage]) -> dict[str, str | bool]:
        """Return the parameters of an answer: the ids of its predictions, and the version."""
        parameters: dict[str, str | bool] = {
            "prediction_ids": ",".join(result.id for result in results),
            "version": self.version,
        }
        if any(result.is_cached for result in results):
            parameters["cached"] = True
        return parameters

    def _check_shape(self, tensor: InputTensor, expected: TensorMetadata) -> None:
        """Refuse a shape; encoded images may have further dimensions of one, as batches have."""
        n_images, *rest = tensor.shape or (0,)
        is_valid = set(rest) <= {1} if tensor.name == IMAGE else rest == [*self._input_shape]
        if not is_valid or n_images < 1:
            raise invalid_tensor(
                f"input {tensor.name!r} has shape {[*tensor.shape][:8]}; it must be "
                f"{[*expected.shape]}, where -1 is the number of images"
            )

    def _parse_pixels(self, tensor: InputTensor) -> list[InputImage]:
        data = tensor.data if isinstance(tensor.data, bytes) else _flatten(tensor.data)
        n_elements = prod(tensor.shape)
        if len(data) != n_elements:
            raise invalid_tensor(_wrong_size(tensor, len(data), n_elements))
        try:
            pixels = np.frombuffer(bytes(data), np.uint8)
        except (TypeError, ValueError):
            raise invalid_tensor(
                f"the elements of {PIXELS!r} must be integers from 0 to 255"
            ) from None
        return list(pixels.reshape(tensor.shape))

    def _build_values(
        self, results: Sequence[ScoredImage], output: RequestedOutput
    ) -> npt.NDArray[Any]:
        if output.name == LABEL:
            return np.array([result.output.label or "" for result in results], object)
        if output.name == PREDICTION:
            return np.array([encode_json(r.to_dict()).decode() for r in results], object)
        if output.name == FEATURES:
            return np.array([result.scores.features for result in results], np.float64)
        if output.name == UNFAMILIARITY:
            scores = [result.scores.unfamiliarity for result in results]
            return np.array([round_unfamiliarity(s) for s in scores if s is not None])
        # As exact as Python's round: 24 bits of a float32 times 10^6 fit into a float64.
        exact = np.array([result.scores.probabilities for result in results], np.float64)
        return self._classify(exact, output) if output.n_classes else np.round(exact, DECIMALS)

    def _classify(
        self, probabilities: npt.NDArray[np.float64], output: RequestedOutput
    ) -> npt.NDArray[Any]:
        """Return the most probable classes of each image as ``probability:index:name``."""
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, : output.n_classes]
        rows = [
            [f"{row[i]:.{DECIMALS}f}:{i}:{self.class_names[i]}" for i in best]
            for row, best in zip(probabilities, order, strict=True)
        ]
        return np.array(rows, object)


def invalid_tensor(detail: str) -> ProblemError:
    """Return the problem of a request whose tensors are not as the metadata says."""
    return ProblemError(400, "tensor", detail)


def _parse_encoded(tensor: InputTensor) -> list[InputImage]:
    n_images, data = tensor.shape[0], tensor.data
    if isinstance(data, bytes):
        return _split_elements(data, n_images)
    elements = _flatten(data)
    if len(elements) != n_images:
        raise invalid_tensor(_wrong_size(tensor, len(elements), n_images))
    return [e if isinstance(e, bytes) else decode_base64(e, i) for i, e in enumerate(elements)]


def _split_elements(data: bytes, n: int) -> list[InputImage]:
    """Return the elements of a binary tensor of BYTES.

    Raises:
        ProblemError: It does not have ``n`` of them.
    """
    elements: list[InputImage] = []
    end = 0
    for _ in range(n):
        start = end + _LENGTH_BYTES
        end = start + int.from_bytes(data[end:start], "little")
        elements.append(data[start:end])
        if end > len(data) or start > len(data):
            break
    if end != len(data):
        raise invalid_tensor(
            f"the binary data of {IMAGE!r} does not fit its shape [{n}]: send each image after its "
            "length in 4 bytes, little-endian"
        )
    return elements


def _flatten(data: Sequence[Any]) -> Sequence[Any]:
    """Return the elements of a flat or nested list, row-major.

    Raises:
        ProblemError: Lists and elements are mixed.
    """
    try:
        while data and isinstance(data[0], list):
            data = list(chain.from_iterable(data))
    except TypeError:
        raise invalid_tensor("the data of a tensor mixes lists and elements") from None
    return data


def _unknown(kind: str, name: str, known: Sequence[TensorMetadata]) -> str:
    names = ", ".join(repr(metadata.name) for metadata in known)
    return f"there is no {kind} {name[:80]!r}; the {kind}s are {names}"


def _wrong_size(tensor: InputTensor, n: int, expected: int) -> str:
    return f"input {tensor.name!r} has {n} elements; its shape {[*tensor.shape]} takes {expected}"
