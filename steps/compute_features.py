"""Step ``compute_features``: a backbone's features of every image of a dataset."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.data.dataset import ImageDataset
from cv_factory.features.backbone import Backbone
from cv_factory.features.image_features import ImageFeatures
from steps.caching import depends_on


@step(cache_policy=depends_on("cv_factory.features.compute"))
def compute_features(
    dataset: ImageDataset, backbone: Backbone, horizontal_flip: bool
) -> Annotated[ImageFeatures, "features"]:
    """Compute the features of all images by ONNX Runtime."""
    from cv_factory.features.compute import compute_features as compute

    return compute(dataset, backbone, horizontal_flip=horizontal_flip)
