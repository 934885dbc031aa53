"""ONNX graphs around a backbone: from a dataset's images to its input, and to its features.

Features and predictors take them from here, so that they cannot differ.
"""

import numpy as np
import onnx
import onnx.compose
from onnx import TensorProto, helper, numpy_helper

from cv_factory.artifacts.onnx_graphs import set_versions
from cv_factory.errors import ExportError
from cv_factory.features.backbone import Backbone


def input_graph(image_shape: tuple[int, int, int], input_size: int) -> onnx.ModelProto:
    """Build the graph from ``images`` uint8 ``(N, H, W, C)`` to ``pixels`` float32.

    Gray images get three equal channels. Images of another size are resized bilinearly to a
    square; where they shrink, over all pixels that a new one covers (antialiased, as Pillow does).

    Args:
        image_shape: H, W, C; C is 1 or 3.
        input_size: S; ``pixels`` are ``(N, 3, S, S)`` from 0 to 255.

    Raises:
        ExportError: The images have another number of channels.
    """
    height, width, channels = image_shape
    if channels not in (1, 3):
        raise ExportError(
            f"A backbone takes gray or RGB images, these have {channels} channels: set "
            "data.channels to 1 or 3."
        )
    resized = (height, width) != (input_size, input_size)
    planes = "planes" if resized or channels == 1 else "pixels"
    nodes = [
        helper.make_node("Transpose", ["images"], ["byte_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["byte_planes"], [planes], to=TensorProto.FLOAT),
    ]
    constants = {}
    if resized:
        shrinks = max(height, width) > input_size
        output = "resized" if channels == 1 else "pixels"
        constants["sizes"] = np.array([input_size, input_size], np.int64)
        nodes.append(
            helper.make_node(
                "Resize",
                [planes, "", "", "sizes"],
                [output],
                mode="linear",
                coordinate_transformation_mode="half_pixel",
                antialias=int(shrinks),
                exclude_outside=int(shrinks),
                axes=[2, 3],
            )
        )
        planes = output
    if channels == 1:
        nodes.append(helper.make_node("Concat", [planes] * 3, ["pixels"], axis=1))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "input",
        [info("images", TensorProto.UINT8, ["N", height, width, channels])],
        [info("pixels", TensorProto.FLOAT, ["N", 3, input_size, input_size])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return set_versions(helper.make_model(graph))


def features_graph(image_shape: tuple[int, int, int], backbone: Backbone) -> onnx.ModelProto:
    """Build the graph from ``images`` uint8 ``(N, H, W, C)`` to ``backbone_features``.

    Args:
        image_shape: H, W, C.
        backbone: Its tensors get the prefix ``backbone/``; its output ``(N, F)`` keeps its name.

    Raises:
        ExportError: As for ``input_graph``.
    """
    model = onnx.compose.add_prefix(
        set_versions(onnx.load_model_from_string(backbone.graph)), "backbone/"
    )
    merged = onnx.compose.merge_models(
        input_graph(image_shape, backbone.input_size),
        model,
        io_map=[("pixels", "backbone/pixels")],
    )
    for node in merged.graph.node:
        for position, name in enumerate(node.output):
            if name == "backbone/backbone_features":
                node.output[position] = "backbone_features"
    merged.graph.output[0].name = "backbone_features"
    return set_versions(merged)
