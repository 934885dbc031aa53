"""Step ``build_reference``: what predictions in the field are compared with, by ``monitoring``."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.inference.predictor import Predictor
from cv_factory.inference.reference import Reference
from steps.caching import depends_on


@step(cache_policy=depends_on("cv_factory.monitoring.build_reference"))
def build_reference(
    predictor: Predictor, dataset: ImageDataset, split: Split, corrupted_images: int, seed: int
) -> Annotated[Reference, "reference"]:
    """Score held-out images, and measure how far estimates of the accuracy are off."""
    from cv_factory.monitoring.build_reference import build_reference as build

    return build(predictor, dataset, split, corrupted_images, seed)
