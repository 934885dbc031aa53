"""Turns an exported predictor into one of fewer bits, and bounds what that did to its answers.

Preprocessing, PCA features and probabilities stay float32. Ranges of int8 are read off training
images alone; labels are not looked at.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from cv_factory.config.export import ExportConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.errors import ExportError
from cv_factory.export.onnx_graph import OPSET, strip
from cv_factory.inference.predictor import GoldenSamples, Predictor

_BATCH = 256
_MODEL = "model/"
_WEIGHTED = ("Conv", "Gemm", "MatMul")
#: What lies between them, and would else turn whole numbers into floats and back.
_PASSED_THROUGH = ("Add", "AveragePool", "Clip", "GlobalAveragePool", "MaxPool", "Relu")


def reduce_precision(
    predictor: Predictor, dataset: ImageDataset, split: Split, config: ExportConfig
) -> Predictor:
    """Return the predictor in the precision that is configured.

    Args:
        predictor: In float32, proven against the live model.
        dataset: Its images.
        split: Training images give int8 its ranges, validation images bound the damage.
        config: ``float32`` returns the predictor itself.

    Raises:
        ExportError: The model has no weights that can be reduced, or too many validation images
            get another label.
    """
    if not config.is_reduced:
        return predictor
    graph = onnx.load_model_from_string(predictor.graph)
    if not _nodes(graph, _WEIGHTED):
        raise ExportError(
            f"{predictor.contract.model['name']} has no convolution and no matrix product to "
            f"compute in {config.precision}: leave out export.precision."
        )
    if config.precision == "float16":
        _halve_weights(graph)
    else:
        places = np.linspace(
            0, len(split.train) - 1, min(config.calibration_images, len(split.train))
        )
        graph = _quantized(graph, dataset.images[np.sort(split.train)[places.astype(np.int64)]])
    strip(graph)
    onnx.checker.check_model(graph, full_check=True)
    reduced = _with_graph(predictor, graph.SerializeToString(deterministic=True), config.precision)
    _check_agreement(predictor, reduced, dataset, split.validation, config)
    return reduced


def _nodes(graph: onnx.ModelProto, kinds: tuple[str, ...]) -> list[str]:
    """Return the names of the model's own nodes of some kinds; those of the transform have none."""
    return [n.name for n in graph.graph.node if n.name.startswith(_MODEL) and n.op_type in kinds]


def _halve_weights(graph: onnx.ModelProto) -> None:
    """Store weights as float16 and compute with them in float32.

    ONNX Runtime has no float16 convolution for x86 CPUs, and no bfloat16 one for any: it would
    convert every input and output instead, which is not faster either.
    """
    weighted = _nodes(graph, _WEIGHTED)
    weights = {node.input[1] for node in graph.graph.node if node.name in weighted}
    casts = []
    for tensor in graph.graph.initializer:
        if tensor.name in weights and tensor.data_type == TensorProto.FLOAT:
            name, values = tensor.name, numpy_helper.to_array(tensor)
            with np.errstate(over="ignore"):
                halved = values.astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(halved, f"{name}/float16"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def _quantized(graph: onnx.ModelProto, images: npt.NDArray[np.uint8]) -> onnx.ModelProto:
    """Return the graph with int8 weights (7 bits, a scale a channel) and uint8 activations.

    B. Jacob et al., Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference, 2018; as pairs of QuantizeLinear and DequantizeLinear, which
    ONNX Runtime fuses into operators on whole numbers.

    Args:
        graph: In float32.
        images: Uint8 ``(n, H, W, C)``, of the training split.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    del graph.opset_import[:]
    graph.opset_import.extend(OPSET)
    with tempfile.TemporaryDirectory(prefix="cv-factory-int8-") as folder, _quiet_quantizer():
        path = Path(folder, "predictor.onnx")
        quantize_static(
            graph,
            path,
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=_nodes(graph, _WEIGHTED + _PASSED_THROUGH),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            # Without VNNI, x86 CPUs add two products in 16 bits and cut off what is too much: of
            # weights up to 127 they would answer otherwise than the CPU that exported.
            reduce_range=True,
        )
        return onnx.load_model(path)


class _Calibration:
    """Hands training images out in batches, as the quantizer asks for them."""

    def __init__(self, images: npt.NDArray[np.uint8]) -> None:
        starts = range(0, len(images), _BATCH)
        self._batches = iter([{"images": images[start : start + _BATCH]} for start in starts])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, None after the last."""
        return next(self._batches, None)


@contextmanager
def _quiet_quantizer() -> Iterator[None]:
    """Keep advice about another order of tools off the console: it goes to the root logger."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def _with_graph(predictor: Predictor, graph: bytes, precision: str) -> Predictor:
    """Return the predictor of another graph, with golden samples that this one answers."""
    contract, images = replace(predictor.contract, precision=precision), predictor.golden.images
    reduced = Predictor(graph, contract, predictor.golden)
    answered = reduced.predict(images)
    return replace(reduced, golden=GoldenSamples(images, answered.probabilities, answered.features))


def _check_agreement(
    predictor: Predictor,
    reduced: Predictor,
    dataset: ImageDataset,
    validation: npt.NDArray[np.int64],
    config: ExportConfig,
) -> None:
    same = [
        predictor.predict(batch).probabilities.argmax(1)
        == reduced.predict(batch).probabilities.argmax(1)
        for batch in dataset.batches(validation, _BATCH)
    ]
    agreement = float(np.concatenate(same).mean())
    if agreement < config.min_agreement:
        raise ExportError(
            f"In {config.precision} {agreement:.2%} of {len(validation)} validation images keep "
            f"their label; export.min_agreement asks for {config.min_agreement:.2%}. Use another "
            "export.precision, or more export.calibration_images."
        )
