"""Counts what an ONNX graph holds and does: parameters, operations, operators."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from cv_factory.inference.predictor import FAMILIARITY_PREFIX

Shape = tuple[int, ...]


def count(graph: bytes) -> tuple[int, int, dict[str, int]]:
    """Count parameters, operations for one image, and nodes by operator.

    The training images that the score of unfamiliarity compares with are no parameters.
    Operations are the multiplications and additions (two each) of convolutions, matrix products
    and linear classifiers; everything element-wise is left out, as is usual.

    Args:
        graph: A serialized model whose first input's first dimension is the batch.
    """
    model = onnx.load_model_from_string(graph)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = _shapes(inferred)
    operations = sum(_operations(node, shapes) for node in inferred.node)
    operators = Counter(node.op_type for node in model.graph.node)
    return _parameters(model.graph), operations, dict(sorted(operators.items()))


def _parameters(graph: Any) -> int:
    stored = sum(
        int(np.prod(tensor.dims))
        for tensor in graph.initializer
        if not tensor.name.startswith(FAMILIARITY_PREFIX)
    )
    for node in graph.node:
        if node.domain == "ai.onnx.ml":
            stored += sum(len(a.floats) for a in node.attribute)
        elif node.op_type == "Constant":
            stored += sum(int(np.prod(a.t.dims)) for a in node.attribute if a.HasField("t"))
    return stored


def _shapes(graph: Any) -> dict[str, Shape]:
    """Return the shapes that are known; 0 stands for a dimension that is not."""
    shapes = {t.name: tuple(numpy_helper.to_array(t).shape) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        # The batch, under whatever name, is one image.
        shapes[value.name] = tuple(
            d.dim_value if d.HasField("dim_value") else int(i == 0) for i, d in enumerate(dims)
        )
    return shapes


def _operations(node: Any, shapes: Mapping[str, Shape]) -> int:
    if node.op_type == "LinearClassifier":
        return 2 * sum(len(a.floats) for a in node.attribute if a.name == "coefficients")
    if node.op_type not in ("Conv", "MatMul", "Gemm"):
        return 0
    weights, output = shapes.get(node.input[1], ()), shapes.get(node.output[0], ())
    if not weights or not output:
        return 0
    if node.op_type == "Conv":
        # Each output value is a sum over the kernel and its group of input channels.
        return 2 * int(np.prod(output)) * int(np.prod(weights[1:]))
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 2 * int(np.prod(output)) * weights[-1 if transposed else -2]
