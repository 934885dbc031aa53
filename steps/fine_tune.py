"""Step ``fine_tune``: train a backbone on, where the step operator puts it."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.features import FeaturesConfig
from cv_factory.config.train import TrainConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.features.backbone import Backbone
from cv_factory.features.image_features import ImageFeatures
from steps.caching import depends_on


@step(step_operator=True, cache_policy=depends_on("cv_factory.training.fine_tune"))
def fine_tune(
    dataset: ImageDataset,
    split: Split,
    features: ImageFeatures,
    config: FeaturesConfig,
    train: TrainConfig,
) -> Annotated[Backbone, "fine_tuned_backbone"]:
    """Train the backbone on with a linear head; choose the epoch on the validation images."""
    from cv_factory.training.fine_tune import fine_tune as tune

    return tune(dataset, split, features, config, train)
