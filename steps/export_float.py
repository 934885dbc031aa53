"""Step ``export_float``: export in float32, the baseline of a predictor of fewer bits."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.export import CalibrationConfig, FamiliarityConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.features.image_features import ImageFeatures
from cv_factory.inference.predictor import Predictor
from cv_factory.training.trained_model import TrainedModel
from cv_factory.transforms.fitted import FittedTransform
from steps.caching import depends_on


@step(cache_policy=depends_on("cv_factory.export.onnx_graph"))
def export_float(
    trained_model: TrainedModel,
    transform: FittedTransform,
    dataset: ImageDataset,
    split: Split,
    calibration: CalibrationConfig,
    familiarity: FamiliarityConfig,
    features: ImageFeatures | None,
    config_fingerprint: str,
) -> Annotated[Predictor, "float_predictor"]:
    """Export, calibrate as configured, and check parity with the reference outputs."""
    from cv_factory.export.onnx_graph import export_training_run

    return export_training_run(
        trained_model,
        transform,
        dataset,
        split,
        calibration,
        familiarity,
        config_fingerprint,
        features,
    )
