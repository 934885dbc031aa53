"""Runs a predictor's graph, or parts of it, on images of a dataset during its export."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from cv_factory.artifacts.onnx_session import open_session
from cv_factory.data.dataset import ImageDataset
from cv_factory.features.image_features import ImageFeatures

#: The tensor ``(N, F)`` between backbone and head.
BACKBONE_FEATURES = "backbone_features"
_IMAGES = "images"
_BATCH = 256


def run_graph(
    graph: onnx.ModelProto,
    tensors: list[str],
    dataset: ImageDataset,
    indices: npt.NDArray[np.int64],
    features: ImageFeatures | None = None,
) -> list[npt.NDArray[Any]]:
    """Return tensors of the graph for some images, each ``(n, ...)``.

    Args:
        graph: Its input is ``images``.
        tensors: Their names.
        dataset: Holds the images.
        indices: Of the images.
        features: Of the backbone in the graph: are taken from here instead of computed again.
    """
    extended = onnx.ModelProto()
    extended.CopyFrom(graph)
    if features is not None:
        _replace_backbone(extended.graph, features.n_features)
    outputs = {output.name for output in extended.graph.output}
    new = (name for name in tensors if name not in outputs)
    extended.graph.output.extend(map(helper.make_empty_tensor_value_info, new))
    session = open_session(extended.SerializeToString())
    inputs = {value.name for value in extended.graph.input}
    batches = []
    for start in range(0, len(indices), _BATCH):
        part = indices[start : start + _BATCH]
        feed: dict[str, Any] = {}
        if _IMAGES in inputs:
            feed[_IMAGES] = dataset.images[part]
        if features is not None:
            feed[BACKBONE_FEATURES] = features.values[part]
        batches.append(session.run(tensors, feed))
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _replace_backbone(graph: onnx.GraphProto, n_features: int) -> None:
    """Make ``backbone_features`` an input, and remove what computes it, in place."""
    made_by = {output: node for node in graph.node for output in node.output}
    pending, removed = [BACKBONE_FEATURES], set()
    while pending:
        node = made_by.get(pending.pop())
        if node is not None and node.output[0] not in removed:
            removed.add(node.output[0])
            pending += node.input
    nodes = [node for node in graph.node if node.output[0] not in removed]
    names = {name for node in nodes for name in node.input}
    inputs = [value for value in graph.input if value.name in names]
    shape: list[str | int | None] = ["N", n_features]
    inputs.append(helper.make_tensor_value_info(BACKBONE_FEATURES, TensorProto.FLOAT, shape))
    constants = [tensor for tensor in graph.initializer if tensor.name in names]
    for field, values in (
        (graph.node, nodes),
        (graph.input, inputs),
        (graph.initializer, constants),
    ):
        del field[:]
        field.extend(values)
