"""The models that a configuration can name: one public module a model, found by its name.

A module holds the model's section (``cv_factory.config.model_section``) and functions by name. A
network: ``build(config, transform)``, and where training does not begin with random weights
``initialize(network, config, transform)``. A classical model: ``fit(config, examples, seed)``,
where settings may be left open ``choose(config, examples, groups)``, and where scikit-learn's
converter does not know it ``convert(estimator, n_features)``. Any: ``check_available(config)``.
Heavy packages are imported inside these functions, since every reader of a configuration imports
the modules.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from cv_factory.config.model_section import ClassicalSection, ModelSection, NetworkSection
from cv_factory.config.plugins import load_plugin

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx
    from torch import nn

    from cv_factory.transforms.fitted import FittedTransform

    Features: TypeAlias = npt.NDArray[np.float32]
    Labels: TypeAlias = npt.NDArray[np.int64]

#: The package whose modules are plug-ins; ``cv_factory.code_fingerprint`` reads it.
PLUGINS = "cv_factory.models"


@dataclass(frozen=True)
class Examples:
    """What a classical model is fitted on.

    Attributes:
        features: float32 ``(N, k)``.
        labels: int64 ``(N,)`` from 0 to K-1, each at least once.
        weights: How much each example counts, float64 ``(N,)``; None where all count 1.
    """

    features: "Features"
    labels: "Labels"
    weights: "npt.NDArray[np.float64] | None" = None


ModelConfigT = TypeVar("ModelConfigT", bound=ModelSection)


class Estimator(Protocol):
    """A fitted classifier with scikit-learn's interface."""

    def predict_proba(self, features: "Features") -> "npt.NDArray[Any]":
        """Map features ``(N, k)`` to probabilities ``(N, K)``, columns in order of the labels."""
        ...


def is_network(config: ModelSection) -> bool:
    """Whether the model is trained by gradient descent on images (else: fitted on features)."""
    return isinstance(config, NetworkSection)


def check_available(config: ModelSection) -> None:
    """Check, before anything is created, that the named model is there on this machine.

    Raises:
        ConfigError: An architecture or weights are unknown, or a package is missing.
    """
    check = getattr(_module(config), "check_available", None)
    if check is not None:
        check(config)


def new_network(config: ModelSection, transform: "FittedTransform") -> "nn.Module":
    """Build a network as training begins with it: first layers and pretrained weights are set.

    Args and returned network as for ``build_network``.

    Raises:
        TrainingError: The images are too small for it, or weights cannot be had.
    """
    network = build_network(config, transform)
    initialize = getattr(_module(config), "initialize", None)
    if initialize is not None:
        initialize(network, config, transform)
    return network


def build_network(config: ModelSection, transform: "FittedTransform") -> "nn.Module":
    """Build a network whose weights are loaded afterwards, as those of a trained one are.

    Args:
        config: The network's section.
        transform: Fitted on the training images; gives image shape, classes and patches.

    Returns:
        Maps normalized images float ``(N, C, H, W)`` to logits ``(N, K)``. Parameters that are
        not trained say ``requires_grad=False``.

    Raises:
        TrainingError: The images are too small for it.
        ValueError: The model is not a network.
    """
    if not isinstance(config, NetworkSection):
        raise ValueError(f"{config.name} is not a network")
    network: nn.Module = _module(config).build(config, transform)
    return network


def choose_settings(
    config: ModelConfigT, examples: Examples, groups: "npt.NDArray[np.int64]"
) -> ModelConfigT:
    """Return a classical model's section with the settings that it leaves open, chosen.

    Args:
        config: The model's section.
        examples: Of the training images.
        groups: Leakage group of each example, int64 ``(N,)``.
    """
    choose = getattr(_module(config), "choose", None)
    if choose is None:
        return config
    chosen: ModelConfigT = choose(config, examples, groups)
    return chosen


def fit_classical(config: ModelSection, examples: Examples, seed: int) -> Estimator:
    """Fit an estimator.

    Raises:
        ValueError: The model is not a classical one.
    """
    if not isinstance(config, ClassicalSection):
        raise ValueError(f"{config.name} is not a classical model")
    estimator: Estimator = _module(config).fit(config, examples, seed)
    return estimator


def convert_classical(
    config: ModelSection, estimator: Estimator, n_features: int, opset: dict[str, int]
) -> "onnx.ModelProto":
    """Convert an estimator to a graph from features float32 ``(N, k)`` to probabilities.

    The probabilities ``(N, K)`` are the graph's last output.

    Args:
        config: The model's section.
        estimator: What ``fit_classical`` returned.
        n_features: k.
        opset: ONNX operator sets by domain, for scikit-learn's converter.
    """
    convert = getattr(_module(config), "convert", None)
    if convert is None:
        return _convert_sklearn(estimator, n_features, opset)
    graph: onnx.ModelProto = convert(estimator, n_features)
    return graph


def _convert_sklearn(
    estimator: Estimator, n_features: int, opset: dict[str, int]
) -> "onnx.ModelProto":
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    graph: onnx.ModelProto = to_onnx(
        estimator,
        name="classical",
        initial_types=[("features", FloatTensorType([None, n_features]))],
        options={"zipmap": False},
        target_opset=opset,
    )
    return graph


def _module(config: ModelSection) -> ModuleType:
    return load_plugin(PLUGINS, config.name, "model")
