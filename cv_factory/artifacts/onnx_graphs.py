"""ONNX graphs: export of a PyTorch module, and the versions that let graphs be merged."""

import logging
import warnings
from typing import TYPE_CHECKING

import onnx
from onnx import helper

from cv_factory.errors import ExportError
from cv_factory.progress import quiet_loggers

if TYPE_CHECKING:
    import torch

#: Of every graph, so that its parts can be merged.
OPSET = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
_IR_VERSION = 10


def export_module(
    module: "torch.nn.Module", example: "torch.Tensor", input_name: str, output_name: str
) -> onnx.ModelProto:
    """Export a module of one input and one output by PyTorch's dynamo exporter.

    The caller compares the graph's outputs with the module's: exporters have been wrong silently.

    Args:
        module: In evaluation mode.
        example: Two or more rows of the input; their number is free in the graph.
        input_name: Name of the graph's input.
        output_name: Name of its output.

    Raises:
        ExportError: The exporter returned nothing.
    """
    import torch

    with quiet_loggers(logging.WARNING, "onnxscript", "onnx_ir"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # a deprecation inside torch
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            input_names=[input_name],
            output_names=[output_name],
            opset_version=OPSET[0].version,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned no program.")
    return program.model_proto


def set_versions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Set the opset and IR version that all parts of a merged graph need."""
    del model.opset_import[:]
    model.opset_import.extend(OPSET)
    model.ir_version = _IR_VERSION
    return model


def strip_metadata(model: onnx.ModelProto, name: str) -> None:
    """Remove paths, stack traces and tool names, so that equal models give equal bytes.

    Args:
        model: Changed in place.
        name: Name of its graph.
    """
    model.producer_name, model.producer_version, model.doc_string = "cv-factory", "", ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    model.graph.name, model.graph.doc_string = name, ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
