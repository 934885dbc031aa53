"""ResNet-18. K. He et al., Deep Residual Learning for Image Recognition, 2016."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cv_factory.models import _torchvision_networks
from cv_factory.models._torchvision_networks import TorchvisionSection, check_available, initialize

if TYPE_CHECKING:
    from cv_factory.models._backbone import BackboneNetwork
    from cv_factory.transforms.fitted import FittedTransform

__all__ = ["ResNet18Config", "build", "check_available", "initialize"]


class ResNet18Config(TorchvisionSection):
    """ResNet-18."""

    name: Literal["resnet18"] = "resnet18"
    small_stem: bool = Field(
        False, description="3x3 first layer without pooling, for images of some 32 pixels"
    )


def build(config: ResNet18Config, transform: "FittedTransform") -> "BackboneNetwork":
    """Build the network with random weights; errors as for ``_torchvision_networks.build``."""
    return _torchvision_networks.build(config, transform, small_stem=config.small_stem)
