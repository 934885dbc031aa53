"""Multinomial logistic regression, whose penalty is chosen by cross-validation if left open."""

import logging
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cv_factory.config.model_section import ClassicalSection

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from cv_factory.features.softmax_regression import SoftmaxRegression
    from cv_factory.models import Estimator, Examples

_log = logging.getLogger(__name__)


class LogisticRegressionConfig(ClassicalSection):
    """Multinomial logistic regression on features, fitted by L-BFGS."""

    name: Literal["logistic_regression"] = "logistic_regression"
    C: Annotated[float, Field(gt=0.0)] | None = Field(
        None,
        description="inverse of the L2 penalty; null: chosen by cross-validation on the training "
        "images",
    )
    max_iter: int = Field(1000, ge=10)


def choose(
    config: LogisticRegressionConfig, examples: "Examples", groups: "npt.NDArray[np.int64]"
) -> LogisticRegressionConfig:
    """Choose C, where it is left open, by cross-validation on the training images."""
    if config.C is not None:
        return config
    from cv_factory.models._penalty_choice import N_FOLDS, choose_penalty

    C, log_loss = choose_penalty(examples, groups, config.max_iter)
    _log.info(
        "Chose model.C=%g by cross-validation in %d folds of %d images: log loss %.3f, calibrated.",
        C,
        N_FOLDS,
        len(examples.labels),
        log_loss,
    )
    return config.model_copy(update={"C": C})


def fit(config: LogisticRegressionConfig, examples: "Examples", seed: int) -> "Estimator":
    """Fit on features and labels, weighted; nothing is random."""
    from cv_factory.features.softmax_regression import SoftmaxRegressionProblem

    if config.C is None:
        raise ValueError("C is open: call choose_settings before")
    n_classes = int(examples.labels.max()) + 1
    problem = SoftmaxRegressionProblem(
        examples.features, examples.labels, n_classes, examples.weights
    )
    return problem.fit(config.C, config.max_iter)


def convert(estimator: "SoftmaxRegression", n_features: int) -> "onnx.ModelProto":
    """Convert to a graph from features float32 ``(N, k)`` to probabilities ``(N, K)``."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from cv_factory.artifacts.onnx_graphs import set_versions

    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["features", "weights", "intercepts"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        ],
        "classical",
        [info("features", TensorProto.FLOAT, ["N", n_features])],
        [info("probabilities", TensorProto.FLOAT, ["N", len(estimator.intercepts)])],
        [
            numpy_helper.from_array(estimator.weights.astype(np.float32), "weights"),
            numpy_helper.from_array(estimator.intercepts.astype(np.float32), "intercepts"),
        ],
    )
    return set_versions(helper.make_model(graph))
