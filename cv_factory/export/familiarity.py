"""Score of how unlike the training images an image is, as part of the exported graph.

Distance to the nearest of some training images, in three spaces:

- pixels: PCA features, and the reconstruction error as one more coordinate (S. Ramaswamy et al.,
  Efficient Algorithms for Mining Outliers from Large Data Sets, 2000); of a backbone's features
  where the model is a head on them;
- spectrum: logarithm of the energy of each level of detail, since photographs have little fine
  detail and noise has much (D. Field, Relations between the Statistics of Natural Images and the
  Response Properties of Cortical Cells, 1987);
- network: normalized input of the last layer, or a backbone's features (Y. Sun et al.,
  Out-of-Distribution Detection with Deep Nearest Neighbors, 2022); a model without either does
  without.

Each alone misses something that another one sees (``benchmarks/unfamiliar.py``), so the largest
counts, each divided by its own quantile on the validation images. These set the threshold as well,
so that the false rate holds approximately: on the digits 1.9 % of the test images, at 1 %.
"""

import logging
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from cv_factory.config.export import FamiliarityConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.export.run_graph import BACKBONE_FEATURES, run_graph
from cv_factory.features.image_features import ImageFeatures
from cv_factory.inference.predictor import (
    FAMILIARITY_PREFIX,
    Familiarity,
    GoldenSamples,
    Predictor,
)

_LOGGER = logging.getLogger(__name__)
#: Decimal places to which the threshold is rounded up, so that last bits do not change it.
_THRESHOLD_DECIMALS = 4
_MODEL_PREFIX, _PREFIX = "model/", "familiarity/"
#: Energy that is added before the logarithm: about that of rounding to 256 levels.
_SMALLEST_ENERGY = 1e-5
_THRESHOLD = f"{FAMILIARITY_PREFIX}threshold"
_OUTPUT = "unfamiliarity"

Embeddings = npt.NDArray[Any]


@dataclass(frozen=True)
class _Space:
    """Prefix of the nodes that embed an image, ``(N, d)``, and the type to compute with."""

    name: str
    dtype: type[np.floating[Any]]

    def tensor(self, name: str) -> str:
        return f"{FAMILIARITY_PREFIX}{self.name}/{name}"

    @property
    def embedding(self) -> str:
        return self.tensor("embedding")


#: In float64, since small distances are differences of large squares.
_PIXELS, _FEATURES = _Space("pixels", np.float64), _Space("features", np.float64)
_SPECTRUM = _Space("spectrum", np.float64)
#: Of unit vectors, whose squares are 1.
_NETWORK = _Space("network", np.float32)


def add_familiarity(
    predictor: Predictor,
    dataset: ImageDataset,
    split: Split,
    config: FamiliarityConfig,
    features: ImageFeatures | None = None,
) -> Predictor:
    """Return the predictor with the output ``unfamiliarity`` and its scale in the contract.

    Args:
        predictor: In float32, without this output.
        dataset: Images of the split.
        split: Training images are the references, validation images set the threshold.
        config: ``none`` returns the predictor itself.
        features: Of the predictor's backbone, to spare running it again.
    """
    if config.method == "none":
        return predictor
    _LOGGER.info("Measuring how unlike the training images the validation images are.")
    graph = onnx.load_model_from_string(predictor.graph)
    references = _select_references(split.train, config.max_references)
    spaces = _add_embeddings(graph)
    embeddings = [space.embedding for space in spaces]
    embedded = run_graph(graph, embeddings, dataset, references, features)
    for space, rows in zip(spaces, embedded, strict=True):
        _add_distance(graph, space, _standardize(graph, rows) if space is _SPECTRUM else rows)
    distances = [space.tensor("distance") for space in spaces]
    measured = run_graph(graph, distances, dataset, split.validation, features)
    scales = [fit_threshold(values, config.false_rate)[0] for values in measured]
    _add_output(graph, [_add_scale(graph, *pair) for pair in zip(spaces, scales, strict=True)])
    unscaled = Familiarity(1.0, config.false_rate, 0, len(references))
    contract = replace(predictor.contract, familiarity=unscaled)
    scored = replace(predictor, graph=_serialize(graph), contract=contract)
    return refit_threshold(scored, dataset, split.validation, features)


def refit_threshold(
    predictor: Predictor,
    dataset: ImageDataset,
    validation: npt.NDArray[np.int64],
    features: ImageFeatures | None = None,
) -> Predictor:
    """Return the predictor with a threshold for the scores that it itself gives.

    Args:
        predictor: With the output ``unfamiliarity``, whose network may have been quantized.
        dataset: Holds the validation images.
        validation: Their indices.
        features: Of the predictor's backbone, to spare running it again.
    """
    previous = predictor.contract.familiarity
    assert previous is not None
    graph = onnx.load_model_from_string(predictor.graph)
    (scores,) = run_graph(graph, [_OUTPUT], dataset, validation, features)
    measured = scores.astype(np.float64)
    threshold, false_rate = fit_threshold(measured * previous.threshold, previous.false_rate)
    if false_rate > previous.false_rate:
        _LOGGER.warning(
            "familiarity.false_rate is %g, which %d validation images cannot show: the threshold "
            "is their largest score, for a false rate of %.2g. Give more validation images.",
            previous.false_rate,
            len(measured),
            false_rate,
        )
    for tensor in graph.graph.initializer:
        if tensor.name == _THRESHOLD:
            tensor.CopyFrom(_threshold_tensor(threshold))
    familiarity = Familiarity(threshold, false_rate, len(measured), previous.n_references)
    contract = replace(predictor.contract, familiarity=familiarity)
    fitted = replace(predictor, graph=_serialize(graph), contract=contract)
    images = predictor.golden.images
    return replace(fitted, golden=GoldenSamples.from_outputs(images, fitted.predict(images)))


def fit_threshold(scores: npt.NDArray[Any], false_rate: float) -> tuple[float, float]:
    """Return the threshold that a new image exceeds with at most this probability.

    Split conformal prediction (V. Vovk et al., Algorithmic Learning in a Random World, 2005): the
    k-th smallest of n scores, k = ceil((n + 1)(1 - false_rate)). Where k exceeds n, the threshold
    is the largest score, which a new image exceeds with probability 1 / (n + 1).

    Args:
        scores: Of images that nothing was fitted on, float ``(n,)``.
        false_rate: Share of such images that may lie above the threshold.

    Returns:
        The threshold, and the false rate that it holds.
    """
    n = len(scores)
    # Rounded, since 100 * (1 - 0.01) may be a little more than 99 in floating point.
    rank = min(n, math.ceil(round((n + 1) * (1 - false_rate), 9)))
    unit = 10.0**-_THRESHOLD_DECIMALS
    threshold = round(math.ceil(float(np.sort(scores)[rank - 1]) / unit) * unit, 9)
    return max(threshold, unit), max(false_rate, 1 / (n + 1))


def _select_references(train: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """Return up to ``n`` training images, evenly spaced."""
    n = min(n, len(train))
    return np.sort(train)[np.linspace(0, len(train) - 1, n).astype(np.int64)]


def _serialize(graph: onnx.ModelProto) -> bytes:
    onnx.checker.check_model(graph, full_check=True)
    serialized: bytes = graph.SerializeToString(deterministic=True)
    return serialized


class _Nodes:
    """Appends nodes of one space to a graph."""

    def __init__(self, graph: onnx.ModelProto, space: _Space) -> None:
        self._graph, self._space = graph.graph, space

    @property
    def axis(self) -> str:
        """Name of the constant [1]."""
        name = f"{FAMILIARITY_PREFIX}axis"
        if all(tensor.name != name for tensor in self._graph.initializer):
            self._graph.initializer.append(numpy_helper.from_array(np.array([1]), name))
        return name

    def constant(self, name: str, value: Any) -> str:
        name = self._space.tensor(name)
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        output = self._space.tensor(output)
        node = helper.make_node(kind, inputs, [output], name=output, **attributes)
        self._graph.node.append(node)
        return output


def _add_embeddings(graph: onnx.ModelProto) -> list[_Space]:
    """Add the nodes that embed an image, and return the spaces that this model has."""
    has_backbone = any(BACKBONE_FEATURES in node.output for node in graph.graph.node)
    spaces = [_FEATURES if has_backbone else _PIXELS]
    _add_pca_embedding(graph, spaces[0])
    _, height, width, _ = (d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim)
    if min(height, width) > 1:
        _add_spectrum(graph, height, width)
        spaces.append(_SPECTRUM)
    embedding = BACKBONE_FEATURES if has_backbone else _find_last_layer_input(graph)
    if embedding is not None:
        _add_network_embedding(graph, embedding)
        spaces.append(_NETWORK)
    return spaces


def _find_last_layer_input(graph: onnx.ModelProto) -> str | None:
    for node in reversed(graph.graph.node):
        if node.op_type in ("Gemm", "MatMul") and node.name.startswith(_MODEL_PREFIX):
            name: str = node.input[0]
            return name
    return None


def _add_pca_embedding(graph: onnx.ModelProto, space: _Space) -> None:
    nodes = _Nodes(graph, space)
    axis, zero = nodes.axis, nodes.constant("zero", np.float64(0))
    squares = []
    for tensor in ("flat_centred", "features"):
        wide = nodes.add("Cast", [tensor], tensor, to=TensorProto.DOUBLE)
        squares.append(nodes.add("ReduceSumSquare", [wide, axis], f"{tensor}_squared", keepdims=1))
    residual = nodes.add("Sub", squares, "residual_squared")
    positive = nodes.add("Max", [residual, zero], "residual_positive")
    error = nodes.add("Sqrt", [positive], "reconstruction_error")
    nodes.add("Concat", [wide, error], "embedding", axis=1)


def _add_spectrum(graph: onnx.ModelProto, height: int, width: int) -> None:
    """Add the logarithm of the energy of each level of a pyramid of means, the finest first.

    A level's energy is the mean variance within 2x2 squares of it.
    """
    nodes = _Nodes(graph, _SPECTRUM)
    axes, energies, scaled = nodes.constant("axes", [1, 2, 3]), [], "scaled"
    if all(scaled not in node.output for node in graph.graph.node):
        pixels = nodes.add("Cast", ["images"], "pixels", to=TensorProto.FLOAT)
        scaled = nodes.add("Div", [pixels, nodes.constant("white", np.float32(255))], "unit_pixels")
    level = nodes.add("Transpose", [scaled], "level_0", perm=[0, 3, 1, 2])
    square = nodes.add("Mul", [level, level], "square_0")
    for number in range(1, min(height, width).bit_length()):
        pooling = {"kernel_shape": [2, 2], "strides": [2, 2]}
        level = nodes.add("AveragePool", [level], f"level_{number}", **pooling)
        mean_square = nodes.add("AveragePool", [square], f"mean_square_{number}", **pooling)
        square = nodes.add("Mul", [level, level], f"square_{number}")
        variance = nodes.add("Sub", [mean_square, square], f"variance_{number}")
        mean = nodes.add("ReduceMean", [variance, axes], f"energy_{number}", keepdims=0)
        energies.append(nodes.add("Unsqueeze", [mean, nodes.axis], f"column_{number}"))
    energy = nodes.add("Concat", energies, "energy", axis=1)
    zero, smallest = (np.float32(value) for value in (0, _SMALLEST_ENERGY))
    positive = nodes.add("Max", [energy, nodes.constant("zero", zero)], "energy_positive")
    floored = nodes.add("Add", [positive, nodes.constant("smallest", smallest)], "energy_floored")
    wide = nodes.add("Cast", [floored], "energy_wide", to=TensorProto.DOUBLE)
    nodes.add("Log", [wide], "log_energy")
    nodes.add("Div", [_SPECTRUM.tensor("log_energy"), nodes.constant("std", [1.0])], "embedding")


def _standardize(graph: onnx.ModelProto, embedded: Embeddings) -> Embeddings:
    """Divide the spectrum's coordinates by their standard deviation over the references."""
    std = np.maximum(embedded.std(axis=0), 1e-3)
    for tensor in graph.graph.initializer:
        if tensor.name == _SPECTRUM.tensor("std"):
            tensor.CopyFrom(numpy_helper.from_array(std, tensor.name))
    standardized: Embeddings = embedded / std
    return standardized


def _add_network_embedding(graph: onnx.ModelProto, tensor: str) -> None:
    nodes = _Nodes(graph, _NETWORK)
    axis, smallest = nodes.axis, nodes.constant("smallest", np.float32(1e-12))
    length = nodes.add("ReduceL2", [tensor, axis], "length", keepdims=1)
    positive = nodes.add("Max", [length, smallest], "length_positive")
    nodes.add("Div", [tensor, positive], "embedding")


def _add_distance(graph: onnx.ModelProto, space: _Space, references: Embeddings) -> None:
    """Add ``distance`` ``(N,)``, the Euclidean one to the nearest of the references ``(n, d)``."""
    nodes = _Nodes(graph, space)
    # float32 holds them: half the bytes of float64.
    stored = references.astype(np.float32)
    squares = (stored.astype(np.float64) ** 2).sum(axis=1)[None].astype(space.dtype)
    table = nodes.constant("references", np.ascontiguousarray(stored.T))
    if space.dtype is np.float64:
        table = nodes.add("Cast", [table], "references_wide", to=TensorProto.DOUBLE)
    axis = nodes.axis
    products = nodes.add("MatMul", [space.embedding, table], "products")
    doubled = nodes.add("Add", [products, products], "products_doubled")
    shifted = nodes.add("Sub", [nodes.constant("squares", squares), doubled], "shifted")
    nearest = nodes.add("ReduceMin", [shifted, axis], "nearest", keepdims=0)
    own = nodes.add("ReduceSumSquare", [space.embedding, axis], "own_square", keepdims=0)
    squared = nodes.add("Add", [nearest, own], "distance_squared")
    floor = nodes.constant("floor", space.dtype(0))
    positive = nodes.add("Max", [squared, floor], "distance_positive")
    nodes.add("Sqrt", [positive], "distance")


def _add_scale(graph: onnx.ModelProto, space: _Space, scale: float) -> str:
    """Add the distance divided by a constant, in float64, and return the tensor's name."""
    nodes = _Nodes(graph, space)
    wide = nodes.add("Cast", [space.tensor("distance")], "wide", to=TensorProto.DOUBLE)
    return nodes.add("Div", [wide, nodes.constant("scale", np.float64(scale))], "scaled")


def _threshold_tensor(threshold: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(threshold, dtype=np.float64), _THRESHOLD)


def _add_output(graph: onnx.ModelProto, distances: list[str]) -> None:
    """Add the output: the largest of the scaled distances, divided by the threshold."""
    largest, ratio = f"{FAMILIARITY_PREFIX}largest", f"{FAMILIARITY_PREFIX}ratio"
    graph.graph.initializer.append(_threshold_tensor(1.0))
    graph.graph.node.extend(
        [
            helper.make_node("Max", distances, [largest], name=largest),
            helper.make_node("Div", [largest, _THRESHOLD], [ratio], name=ratio),
            helper.make_node("Cast", [ratio], [_OUTPUT], name=_OUTPUT, to=TensorProto.FLOAT),
        ]
    )
    graph.graph.output.append(helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, ["N"]))
