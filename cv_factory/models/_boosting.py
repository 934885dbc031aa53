"""Settings and ONNX conversion shared by models of gradient-boosted trees."""

from typing import TYPE_CHECKING

from pydantic import Field

from cv_factory.config.model_section import ClassicalSection

if TYPE_CHECKING:
    import onnx

    from cv_factory.models import Estimator

#: The newest that onnxmltools writes; the merged graph declares the newer one of all its parts.
_OPSET = 15


class BoostingSection(ClassicalSection):
    """Settings that all packages of boosted trees have, under one name each."""

    n_estimators: int = Field(200, ge=1, le=5000, description="rounds of boosting")
    learning_rate: float = Field(0.1, gt=0.0, le=1.0)
    subsample: float = Field(1.0, gt=0.0, le=1.0, description="share of the images a round")
    colsample: float = Field(1.0, gt=0.0, le=1.0, description="share of the features a tree")
    l2: float = Field(1.0, ge=0.0, description="penalty on the leaves' weights")


def convert_boosted(
    package: str, estimator: "Estimator", n_features: int, **options: bool
) -> "onnx.ModelProto":
    """Convert trees of ``xgboost`` or ``lightgbm`` by onnxmltools; ``options`` are passed to it."""
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    convert = getattr(onnxmltools, f"convert_{package}")
    graph: onnx.ModelProto = convert(
        estimator,
        name="classical",
        initial_types=[("features", FloatTensorType([None, n_features]))],
        target_opset=_OPSET,
        **options,
    )
    return graph
