"""Step ``split``: divide an ImageDataset into train, validation and test."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.split import SplitConfig
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from steps.caching import depends_on


@step(cache_policy=depends_on("cv_factory.config.split", "cv_factory.data.split"))
def split(dataset: ImageDataset, config: SplitConfig) -> Annotated[Split, "split"]:
    """Draw the split."""
    from cv_factory.data.split import split_dataset

    return split_dataset(dataset, config)
