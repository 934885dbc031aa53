"""Joins the fitted transform and the trained model into one ONNX graph, and proves it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import onnx
import onnx.compose
from onnx import TensorProto, helper, numpy_helper

from cv_factory.config.export import CalibrationConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.errors import ExportError
from cv_factory.export.calibrate import SMALLEST, apply_temperature, fit_temperature
from cv_factory.export.fingerprints import fingerprints
from cv_factory.inference.predictor import Contract, GoldenSamples, Predictor
from cv_factory.models import build_network, is_network
from cv_factory.training.trained_model import TrainedModel
from cv_factory.transforms.fitted import FittedTransform

#: Largest difference in probability between the live model and its export.
TOLERANCE = 1e-4

#: Of every graph: what its halves, and whatever rewrites it, must share.
OPSET = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
_IR_VERSION = 10
_GOLDEN_SAMPLES = 16
_BATCH = 1024


#: A dataset, and the indices of its validation images.
HeldOut = tuple[ImageDataset, npt.NDArray[np.int64]]


def export_of_run(
    trained: TrainedModel,
    transform: FittedTransform,
    dataset: ImageDataset,
    split: Split,
    calibration: CalibrationConfig,
    config_fingerprint: str,
) -> Predictor:
    """Build the predictor of a training run: calibrated if asked to, with what it was made of.

    Raises:
        ExportError: As for ``export_predictor``.
    """
    made_of = fingerprints(dataset, split, trained, config_fingerprint)
    return export_predictor(
        trained, transform, made_of, images_to_calibrate_on(dataset, split, calibration)
    )


def images_to_calibrate_on(
    dataset: ImageDataset, split: Split, config: CalibrationConfig
) -> HeldOut | None:
    """Return the images that probabilities are calibrated on; None if they are not."""
    return (dataset, split.validation) if config.method == "temperature" else None


def export_predictor(
    trained: TrainedModel,
    transform: FittedTransform,
    fingerprints: dict[str, str],
    held_out: HeldOut | None = None,
) -> Predictor:
    """Build the predictor and compare it with what the live model answered.

    Args:
        trained: The model and its reference outputs.
        transform: What the model was trained behind.
        fingerprints: SHA-256 of what went in, for the contract; the transform's own is added.
        held_out: Validation images, for a predictor that is calibrated on them.

    Raises:
        ExportError: The graph's probabilities differ from the reference by more than 1e-4.
    """
    made_of = fingerprints | {"transform": transform.fingerprint}
    graph = build_graph(trained, transform)
    predictor = _prove(graph, trained, transform, made_of, 1.0)
    if held_out is None:
        return predictor
    dataset, validation = held_out
    scores = [predictor.predict(b).probabilities for b in dataset.batches(validation, _BATCH)]
    temperature = fit_temperature(np.concatenate(scores), dataset.labels[validation])
    _add_temperature(graph, temperature)
    return _prove(graph, trained, transform, made_of, temperature)


def _prove(
    graph: onnx.ModelProto,
    trained: TrainedModel,
    transform: FittedTransform,
    fingerprints: dict[str, str],
    temperature: float,
) -> Predictor:
    """Return the predictor of a graph, if it answers as the live model did.

    Raises:
        ExportError: It does not.
    """
    height, width, channels = transform.image_shape
    contract = Contract(
        height=height,
        width=width,
        channels=channels,
        class_names=transform.class_names,
        n_features=len(transform.pca.components),
        model=trained.config.model_dump(mode="json"),
        fingerprints=fingerprints,
        temperature=temperature,
    )
    serialized = graph.SerializeToString(deterministic=True)
    nothing = np.empty((0,))
    draft = Predictor(serialized, contract, GoldenSamples(nothing, nothing, nothing))  # type: ignore[arg-type]
    reference = trained.reference
    answered = draft.predict(reference.images)
    expected = reference.probabilities
    if temperature != 1.0:
        expected = apply_temperature(expected, temperature)
    difference = float(np.abs(answered.probabilities - expected).max())
    # Not "difference > TOLERANCE": NaN must fail as well.
    if not difference <= TOLERANCE:
        raise ExportError(
            f"The exported predictor differs from the trained model by {difference:.2e} in "
            f"probability on {len(reference.images)} validation images (allowed: {TOLERANCE:g}). "
            "The export of this model is wrong; it is not stored."
        )
    golden = GoldenSamples(
        reference.images[:_GOLDEN_SAMPLES],
        answered.probabilities[:_GOLDEN_SAMPLES],
        answered.features[:_GOLDEN_SAMPLES],
    )
    return Predictor(serialized, contract, golden)


def _add_temperature(model: onnx.ModelProto, temperature: float) -> None:
    """Put temperature scaling between the model and ``probabilities``."""
    _rename_inside(model, "probabilities", "uncalibrated")
    constants = {
        "calibration/smallest": np.float32(SMALLEST),
        "calibration/temperature": np.float32(temperature),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    model.graph.node.extend(
        [
            helper.make_node("Max", ["uncalibrated", "calibration/smallest"], ["floored"]),
            helper.make_node("Log", ["floored"], ["log_probabilities"]),
            helper.make_node(
                "Div", ["log_probabilities", "calibration/temperature"], ["scaled_log"]
            ),
            helper.make_node("Softmax", ["scaled_log"], ["probabilities"], axis=1),
        ]
    )
    onnx.checker.check_model(model, full_check=True)


def build_graph(trained: TrainedModel, transform: FittedTransform) -> onnx.ModelProto:
    """Compose transform and model: ``images`` to ``probabilities`` and ``features``."""
    if is_network(trained.config):
        model, entry = _network_graph(trained, transform), "normalized"
    else:
        model, entry = onnx.load_model_from_string(trained.graph), "model_features"
    model = onnx.compose.add_prefix(model, "model/")
    source = onnx.compose.merge_models(
        _transform_graph(transform, entry),
        _with_versions(model),
        io_map=[(entry, model.graph.input[0].name)],
        outputs=["features", _probability_output(model)],
    )
    merged = _rename_output(source, _probability_output(model), "probabilities")
    strip(merged)
    onnx.checker.check_model(merged, full_check=True)
    return merged


def _transform_graph(transform: FittedTransform, entry: str) -> onnx.ModelProto:
    """Graph from ``images`` uint8 ``(N, H, W, C)`` to ``entry`` and ``features``."""
    height, width, channels = transform.image_shape
    statistics, pca = transform.normalization, transform.pca
    constants = {
        "scale": np.float32(255),
        "mean": statistics.mean,
        "std": statistics.std,
        "pca_mean": pca.mean,
        "pca_components": np.ascontiguousarray(pca.components.T),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "scale"], ["scaled"]),
    ]
    if entry == "normalized":
        nodes += [
            helper.make_node("Sub", ["scaled", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["standardized"]),
            helper.make_node("Transpose", ["standardized"], ["normalized"], perm=[0, 3, 1, 2]),
        ]
        shape: list[str | int] = ["N", channels, height, width]
    else:
        constants["features_std"] = transform.standardization.std
        nodes.append(helper.make_node("Div", ["features", "features_std"], ["model_features"]))
        shape = ["N", len(pca.components)]
    nodes[2:2] = _pca_nodes(pca.pool)
    graph = helper.make_graph(
        nodes,
        "transform",
        [
            helper.make_tensor_value_info(
                "images", TensorProto.UINT8, ["N", height, width, channels]
            )
        ],
        [
            helper.make_tensor_value_info(
                "features", TensorProto.FLOAT, ["N", len(pca.components)]
            ),
            helper.make_tensor_value_info(entry, TensorProto.FLOAT, shape),
        ],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return _with_versions(helper.make_model(graph))


def _pca_nodes(pool: int) -> list[onnx.NodeProto]:
    """Nodes from ``scaled`` ``(N, H, W, C)`` to ``features``: pool, flatten, project."""
    pooled = [
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool",
            ["planes"],
            ["pooled_planes"],
            kernel_shape=[pool, pool],
            strides=[pool, pool],
        ),
        helper.make_node("Transpose", ["pooled_planes"], ["pooled"], perm=[0, 2, 3, 1]),
    ]
    flatten_input = "pooled" if pool > 1 else "scaled"
    return [
        *(pooled if pool > 1 else []),
        helper.make_node("Flatten", [flatten_input], ["flat"], axis=1),
        helper.make_node("Sub", ["flat", "pca_mean"], ["flat_centred"]),
        helper.make_node("MatMul", ["flat_centred", "pca_components"], ["features"]),
    ]


def _network_graph(trained: TrainedModel, transform: FittedTransform) -> onnx.ModelProto:
    """Export the network, and softmax behind it, from normalized images ``(N, C, H, W)``."""
    import torch

    network = build_network(trained.config, transform)
    network.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in trained.weights.items()})
    module = torch.nn.Sequential(network, torch.nn.Softmax(dim=1)).eval()
    height, width, channels = trained.image_shape
    example = torch.zeros(2, channels, height, width)
    batch = torch.export.Dim("N", min=1)
    with _quiet_exporter():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: batch},),
            input_names=["normalized"],
            output_names=["probabilities"],
            opset_version=OPSET[0].version,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned no program.")
    return program.model_proto


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's notes on its passes, and a deprecation inside torch, off the console."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _probability_output(model: onnx.ModelProto) -> str:
    """Name of the output that holds probabilities (skl2onnx also gives a label)."""
    name: str = model.graph.output[-1].name
    return name


def _with_versions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a graph the versions that both halves must share to be merged."""
    del model.opset_import[:]
    model.opset_import.extend(OPSET)
    model.ir_version = _IR_VERSION
    return model


def _rename_output(model: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    _rename_inside(model, old, new)
    for output in model.graph.output:
        if output.name == old:
            output.name = new
    return model


def _rename_inside(model: onnx.ModelProto, old: str, new: str) -> None:
    """Rename a tensor between nodes; the graph's own inputs and outputs keep their names."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = new


def strip(model: onnx.ModelProto) -> None:
    """Remove what says where and when the graph was made: paths, stack traces, tool names."""
    model.producer_name, model.producer_version, model.doc_string = "cv-factory", "", ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    model.graph.name, model.graph.doc_string = "predictor", ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
