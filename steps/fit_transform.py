"""Step ``fit_transform``: fit normalization and PCA on the training images or their features."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.transform import TransformConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.features.image_features import ImageFeatures
from cv_factory.transforms.fitted import FittedTransform
from steps.caching import depends_on


@step(cache_policy=depends_on("cv_factory.config.transform", "cv_factory.transforms.fitted"))
def fit_transform(
    dataset: ImageDataset,
    split: Split,
    config: TransformConfig,
    features: ImageFeatures | None = None,
) -> Annotated[FittedTransform, "transform"]:
    """Fit on the training part alone."""
    from cv_factory.transforms.fitted import fit_transform as fit

    return fit(dataset, split.train, config, features)
