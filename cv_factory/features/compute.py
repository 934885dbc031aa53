"""Features of all images of a dataset, by ONNX Runtime, batch by batch."""

from cv_factory.data.dataset import ImageDataset
from cv_factory.features.backbone import Backbone
from cv_factory.features.image_features import ImageFeatures


def compute_features(
    dataset: ImageDataset, backbone: Backbone, *, horizontal_flip: bool
) -> ImageFeatures:
    """Compute the features of all images, and of their mirror images where asked for."""
    raise NotImplementedError
