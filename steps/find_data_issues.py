"""Step ``find_data_issues``: doubtful labels, near duplicates and outliers by features."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.curation.data_issues import DataIssues
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.features.image_features import ImageFeatures
from steps.caching import depends_on


@step(cache_policy=depends_on("cv_factory.curation.find_data_issues"))
def find_data_issues(
    dataset: ImageDataset, split: Split, features: ImageFeatures
) -> Annotated[DataIssues, "data_issues"]:
    """Find what speaks against images and labels; nothing is changed by it."""
    from cv_factory.curation.find_data_issues import find_data_issues as find

    return find(dataset, split, features)
