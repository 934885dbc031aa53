"""Quantization of an exported predictor to float16 weights or int8, with a bound on its agreement.

Preprocessing, PCA features and probabilities stay float32. Activation ranges of int8 come from
training images alone; labels are not used.
"""

import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from cv_factory.artifacts.onnx_graphs import OPSET, strip_metadata
from cv_factory.artifacts.onnx_session import import_onnxruntime
from cv_factory.config.export import ExportConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.errors import ExportError
from cv_factory.export.familiarity import refit_threshold
from cv_factory.export.golden_samples import select_golden_samples
from cv_factory.inference.predictor import Predictor
from cv_factory.progress import quiet_loggers
from cv_factory.reporting.numbers import format_beside_limit, format_share

_log = logging.getLogger(__name__)

_BATCH = 256
_MODEL_PREFIX = "model/"
_WEIGHTED_OPS = ("Conv", "Gemm", "MatMul")
#: Operators between them, quantized as well so that tensors stay integers.
_PASSTHROUGH_OPS = ("Add", "AveragePool", "Clip", "GlobalAveragePool", "MaxPool", "Relu")


def quantize(
    predictor: Predictor, dataset: ImageDataset, split: Split, config: ExportConfig
) -> Predictor:
    """Return the predictor in ``config.precision``.

    Args:
        predictor: In float32, verified against the live model.
        dataset: Images of the split.
        split: Training images calibrate int8; validation images measure agreement and become golden
            samples.
        config: ``float32`` returns the predictor itself.

    Raises:
        ExportError: The model has no weights to quantize, or fewer than ``min_agreement`` of the
            validation images keep their label.
    """
    if not config.is_reduced:
        return predictor
    _log.info("Converting the graph to %s.", config.precision)
    graph = onnx.load_model_from_string(predictor.graph)
    if not _node_names(graph, _WEIGHTED_OPS):
        raise ExportError(
            f"{predictor.contract.model['name']} has no convolution and no matrix product to "
            f"compute in {config.precision}: remove export.precision."
        )
    if config.precision == "float16":
        _cast_weights_to_float16(graph)
    else:
        graph = _quantize_int8(graph, _select_calibration_images(dataset, split, config))
    strip_metadata(graph, "predictor")
    onnx.checker.check_model(graph, full_check=True)
    quantized = Predictor(
        graph.SerializeToString(deterministic=True),
        replace(predictor.contract, precision=config.precision),
        predictor.golden,
    )
    _check_agreement(predictor, quantized, dataset, split.validation, config)
    if quantized.contract.familiarity is not None:
        quantized = refit_threshold(quantized, dataset, split.validation)
    return replace(quantized, golden=select_golden_samples(quantized, dataset, split.validation))


def _select_calibration_images(
    dataset: ImageDataset, split: Split, config: ExportConfig
) -> npt.NDArray[np.uint8]:
    """Return ``calibration_images`` training images, evenly spaced, uint8 ``(n, H, W, C)``."""
    n = min(config.calibration_images, len(split.train))
    positions = np.linspace(0, len(split.train) - 1, n).astype(np.int64)
    return dataset.images[np.sort(split.train)[positions]]


def _node_names(graph: onnx.ModelProto, op_types: tuple[str, ...]) -> list[str]:
    """Return the names of the model's nodes (not the transform's) of some operator types."""
    nodes = (n for n in graph.graph.node if n.name.startswith(_MODEL_PREFIX))
    return [n.name for n in nodes if n.op_type in op_types]


def _cast_weights_to_float16(graph: onnx.ModelProto) -> None:
    """Store weights as float16 and compute with them in float32.

    ONNX Runtime has no float16 convolution for x86 CPUs, and no bfloat16 one for any CPU: it would
    convert every input and output instead, which is no faster.
    """
    weighted = _node_names(graph, _WEIGHTED_OPS)
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


def _quantize_int8(graph: onnx.ModelProto, images: npt.NDArray[np.uint8]) -> onnx.ModelProto:
    """Return the graph with int8 weights (7 bits, a scale a channel) and uint8 activations.

    B. Jacob et al., Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference, 2018; as pairs of QuantizeLinear and DequantizeLinear, which
    ONNX Runtime fuses into operators on whole numbers.

    Args:
        graph: In float32.
        images: Uint8 ``(n, H, W, C)``, of the training split.
    """
    import_onnxruntime()
    from onnxruntime.quantization import (  # noqa: TID251
        QuantFormat,
        QuantType,
        quantize_static,
    )

    del graph.opset_import[:]
    graph.opset_import.extend(OPSET)
    # It logs advice on preprocessing to the root logger.
    quiet = quiet_loggers(logging.ERROR, None)
    with tempfile.TemporaryDirectory(prefix="cv-factory-int8-") as folder, quiet:
        path = Path(folder, "predictor.onnx")
        quantize_static(
            graph,
            path,
            _CalibrationDataReader(images),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=_node_names(graph, _WEIGHTED_OPS + _PASSTHROUGH_OPS),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            # Without VNNI, x86 CPUs add two products in 16 bits and cut off what is too much: of
            # weights up to 127 they would answer otherwise than the CPU that exported.
            reduce_range=True,
        )
        return onnx.load_model(path)


class _CalibrationDataReader:
    """Batches of training images for ONNX Runtime's quantizer (its ``CalibrationDataReader``)."""

    def __init__(self, images: npt.NDArray[np.uint8]) -> None:
        starts = range(0, len(images), _BATCH)
        self._batches = iter([{"images": images[start : start + _BATCH]} for start in starts])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch, None after the last."""
        return next(self._batches, None)


def _check_agreement(
    predictor: Predictor,
    quantized: Predictor,
    dataset: ImageDataset,
    validation: npt.NDArray[np.int64],
    config: ExportConfig,
) -> None:
    matches = [
        predictor.predict(batch).probabilities.argmax(1)
        == quantized.predict(batch).probabilities.argmax(1)
        for batch in dataset.batches(validation, _BATCH)
    ]
    agreement = float(np.concatenate(matches).mean())
    if agreement < config.min_agreement:
        raise ExportError(
            f"In {config.precision} {format_beside_limit(agreement, config.min_agreement, '.2%')} "
            f"of {len(validation)} validation images keep their label; export.min_agreement is "
            f"{format_share(config.min_agreement)}. Use another export.precision, or more "
            "export.calibration_images."
        )
