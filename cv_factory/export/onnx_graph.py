"""Export of transform and trained model as one ONNX graph, checked against the live model."""

import logging
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import onnx
import onnx.compose
from onnx import TensorProto, helper, numpy_helper

from cv_factory.artifacts.onnx_graphs import export_module, set_versions, strip_metadata
from cv_factory.config.export import CalibrationConfig, FamiliarityConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.errors import ExportError
from cv_factory.export.calibrate import MIN_PROBABILITY, apply_temperature, calibrate
from cv_factory.export.familiarity import add_familiarity
from cv_factory.export.fingerprints import compute_fingerprints
from cv_factory.export.golden_samples import select_golden_samples
from cv_factory.export.run_graph import BACKBONE_FEATURES, run_graph
from cv_factory.features.backbone import Backbone
from cv_factory.features.graph import features_graph
from cv_factory.features.image_features import ImageFeatures
from cv_factory.inference.predictor import BackboneSource, Contract, GoldenSamples, Predictor
from cv_factory.models import build_network, is_network
from cv_factory.training.trained_model import Reference, TrainedModel
from cv_factory.transforms.fitted import FittedTransform

_log = logging.getLogger(__name__)

#: Largest difference in probability between the live model and its export.
PARITY_TOLERANCE = 1e-4


def export_training_run(
    trained: TrainedModel,
    transform: FittedTransform,
    dataset: ImageDataset,
    split: Split,
    calibration: CalibrationConfig,
    familiarity: FamiliarityConfig,
    config_fingerprint: str,
    features: ImageFeatures | None = None,
) -> Predictor:
    """Build the predictor of a training run as configured, with input fingerprints.

    Args as for ``export_predictor``.

    Raises:
        ExportError: As for ``export_predictor``.
    """
    _log.info("Exporting %s with its transforms as one ONNX graph.", trained.config.name)
    fingerprints = compute_fingerprints(dataset, split, trained, config_fingerprint)
    predictor = export_predictor(
        trained, transform, fingerprints, dataset, split.validation, calibration, features
    )
    return add_familiarity(predictor, dataset, split, familiarity, features)


def export_predictor(
    trained: TrainedModel,
    transform: FittedTransform,
    fingerprints: dict[str, str],
    dataset: ImageDataset,
    validation: npt.NDArray[np.int64],
    calibration: CalibrationConfig | None = None,
    features: ImageFeatures | None = None,
) -> Predictor:
    """Build the predictor and compare its outputs with the reference outputs.

    Args:
        trained: The model and its reference outputs.
        transform: The transform that the model was trained with.
        fingerprints: SHA-256 of each input, for the contract; the transform's own is added.
        dataset: Images and labels.
        validation: Indices of the images to calibrate on and to choose the golden samples from.
        calibration: None for an uncalibrated predictor.
        features: What the model was fitted on: their backbone becomes part of the graph, and they
            spare running it on the validation images again.

    Raises:
        ExportError: The graph's probabilities differ from the reference by more than 1e-4, or the
            transform was fitted on features of another backbone.
    """
    backbone = None if features is None else features.backbone
    if transform.backbone != (backbone and backbone.fingerprint):
        raise ExportError(
            "The transform was not fitted on the features of this backbone: run the step "
            "fit_transform again."
        )
    contract = _contract(trained, transform, fingerprints, backbone)
    graph = build_graph(trained, transform, backbone)
    predictor = _build_verified(graph, contract, trained.reference)
    if calibration is not None and calibration.method == "temperature":
        _log.info("Calibrating on %s validation images.", f"{len(validation):,}")
        (scores,) = run_graph(graph, ["probabilities"], dataset, validation, features)
        temperature, check = calibrate(scores, dataset.labels[validation])
        contract = replace(contract, temperature=temperature, calibration=check)
        if temperature != 1.0:
            _add_temperature(graph, temperature)
        predictor = _build_verified(graph, contract, trained.reference)
    contract = replace(contract, value_range=dataset.value_range)
    golden = select_golden_samples(predictor, dataset, validation, features)
    return replace(predictor, contract=contract, golden=golden)


def _contract(
    trained: TrainedModel,
    transform: FittedTransform,
    fingerprints: dict[str, str],
    backbone: Backbone | None,
) -> Contract:
    """Return the contract of an uncalibrated predictor."""
    height, width, channels = transform.image_shape
    return Contract(
        height=height,
        width=width,
        channels=channels,
        class_names=transform.class_names,
        n_features=len(transform.pca.components),
        model=trained.config.model_dump(mode="json"),
        fingerprints=fingerprints | {"transform": transform.fingerprint},
        backbone=None if backbone is None else _describe(backbone),
    )


def _describe(backbone: Backbone) -> BackboneSource:
    return BackboneSource(
        name=backbone.name,
        input_size=backbone.input_size,
        n_features=backbone.n_features,
        weights_sha256=backbone.weights_sha256,
        license=backbone.license,
        fingerprint=backbone.fingerprint,
        fine_tuned_epochs=backbone.fine_tuned_epochs,
        fine_tuned_precision=backbone.fine_tuned_precision,
    )


def _build_verified(graph: onnx.ModelProto, contract: Contract, reference: Reference) -> Predictor:
    """Build the predictor of a graph, without golden samples; verify the reference outputs.

    Raises:
        ExportError: The outputs differ by more than ``PARITY_TOLERANCE``.
    """
    empty = np.empty((0,))
    predictor = Predictor(
        graph.SerializeToString(deterministic=True),
        contract,
        GoldenSamples(empty, empty, empty),  # type: ignore[arg-type]
    )
    probabilities = predictor.predict(reference.images).probabilities
    _check_parity(probabilities, reference, contract.temperature)
    return predictor


def _check_parity(
    probabilities: npt.NDArray[np.float32], reference: Reference, temperature: float
) -> None:
    expected = reference.probabilities
    if temperature != 1.0:
        expected = apply_temperature(expected, temperature)
    difference = float(np.abs(probabilities - expected).max())
    # Not "difference > PARITY_TOLERANCE": NaN must fail as well.
    if not difference <= PARITY_TOLERANCE:
        raise ExportError(
            f"The exported predictor differs from the trained model by {difference:.2e} in "
            f"probability on {len(expected)} validation images (allowed: "
            f"{PARITY_TOLERANCE:g}). The export of this model is wrong; it is not stored."
        )


def _add_temperature(model: onnx.ModelProto, temperature: float) -> None:
    """Insert temperature scaling between the model and ``probabilities``."""
    _rename_tensor(model, "probabilities", "uncalibrated")
    constants = {
        "calibration/smallest": np.float32(MIN_PROBABILITY),
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


def build_graph(
    trained: TrainedModel, transform: FittedTransform, backbone: Backbone | None = None
) -> onnx.ModelProto:
    """Compose transform and model: ``images`` to ``probabilities`` and ``features``."""
    if backbone is not None:
        model, model_input = onnx.load_model_from_string(trained.graph), BACKBONE_FEATURES
        transform_graph = _backbone_graph(transform, backbone)
    else:
        if is_network(trained.config):
            model, model_input = _network_graph(trained, transform), "normalized"
        else:
            model, model_input = onnx.load_model_from_string(trained.graph), "model_features"
        transform_graph = _transform_graph(transform, model_input)
    model = onnx.compose.add_prefix(model, "model/")
    source = onnx.compose.merge_models(
        transform_graph,
        set_versions(model),
        io_map=[(model_input, model.graph.input[0].name)],
        outputs=["features", _probability_output(model)],
    )
    merged = _rename_output(source, _probability_output(model), "probabilities")
    strip_metadata(merged, "predictor")
    onnx.checker.check_model(merged, full_check=True)
    return merged


def _transform_graph(transform: FittedTransform, model_input: str) -> onnx.ModelProto:
    """Build the graph from ``images`` uint8 ``(N, H, W, C)`` to model input and ``features``."""
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
    if model_input == "normalized":
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
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "transform",
        [info("images", TensorProto.UINT8, ["N", height, width, channels])],
        [
            info("features", TensorProto.FLOAT, ["N", len(pca.components)]),
            info(model_input, TensorProto.FLOAT, shape),
        ],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    return set_versions(helper.make_model(graph))


def _backbone_graph(transform: FittedTransform, backbone: Backbone) -> onnx.ModelProto:
    """Build the graph from ``images`` to ``backbone_features`` and their PCA, ``features``."""
    pca, model = transform.pca, features_graph(transform.image_shape, backbone)
    constants = {
        "pca_mean": pca.mean,
        "pca_components": np.ascontiguousarray(pca.components.T),
    }
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    model.graph.node.extend(_projection_nodes(BACKBONE_FEATURES))
    shape: list[str | int | None] = ["N", len(pca.components)]
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, shape))
    return model


def _pca_nodes(pool: int) -> list[onnx.NodeProto]:
    """Build the nodes from ``scaled`` ``(N, H, W, C)`` to ``features``: pool, flatten, project."""
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
        *_projection_nodes("flat"),
    ]


def _projection_nodes(flat: str) -> list[onnx.NodeProto]:
    """Build the nodes from a tensor ``(N, D)`` to ``features``."""
    return [
        helper.make_node("Sub", [flat, "pca_mean"], ["flat_centred"]),
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
    return export_module(module, example, "normalized", "probabilities")


def _probability_output(model: onnx.ModelProto) -> str:
    """Return the name of the output with probabilities (skl2onnx adds one with labels)."""
    name: str = model.graph.output[-1].name
    return name


def _rename_output(model: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    _rename_tensor(model, old, new)
    for output in model.graph.output:
        if output.name == old:
            output.name = new
    return model


def _rename_tensor(model: onnx.ModelProto, old: str, new: str) -> None:
    """Rename a tensor between nodes; the graph's own inputs and outputs keep their names."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = new
