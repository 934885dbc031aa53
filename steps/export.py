"""Transform and model become one file, which must answer as the live model did."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.config import CalibrationConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.inference.predictor import Predictor
from cv_factory.training.trained_model import TrainedModel
from cv_factory.transforms.fitted import FittedTransform
from steps.caching import depends_on


@step(cache_policy=depends_on("cv_factory.training.provenance", "cv_factory.training.export"))
def export(
    trained_model: TrainedModel,
    transform: FittedTransform,
    dataset: ImageDataset,
    split: Split,
    calibration: CalibrationConfig,
    config_fingerprint: str,
) -> Annotated[Predictor, "predictor"]:
    """Export, calibrate if asked to, and compare with the reference outputs."""
    from cv_factory.training.export import export_predictor
    from cv_factory.training.provenance import fingerprints

    made_of = fingerprints(dataset, split, trained_model, config_fingerprint)
    held_out = (dataset, split.validation) if calibration.method == "temperature" else None
    return export_predictor(trained_model, transform, made_of, held_out)
