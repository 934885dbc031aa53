"""Step ``export``: export transform and model as one ONNX graph, equal to the live model."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.export import CalibrationConfig, ExportConfig, FamiliarityConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.features.image_features import ImageFeatures
from cv_factory.inference.predictor import Predictor
from cv_factory.training.trained_model import TrainedModel
from cv_factory.transforms.fitted import FittedTransform
from steps.caching import depends_on


@step(cache_policy=depends_on("cv_factory.export.onnx_graph", "cv_factory.export.quantize"))
def export(
    trained_model: TrainedModel,
    transform: FittedTransform,
    dataset: ImageDataset,
    split: Split,
    calibration: CalibrationConfig,
    familiarity: FamiliarityConfig,
    features: ImageFeatures | None,
    config: ExportConfig,
    config_fingerprint: str,
    float_predictor: Predictor | None = None,
) -> Annotated[Predictor, "predictor"]:
    """Export, calibrate, check parity with the reference outputs, and quantize, as configured."""
    from cv_factory.export.onnx_graph import export_training_run
    from cv_factory.export.quantize import quantize

    exported = float_predictor or export_training_run(
        trained_model,
        transform,
        dataset,
        split,
        calibration,
        familiarity,
        config_fingerprint,
        features,
    )
    return quantize(exported, dataset, split, config)
