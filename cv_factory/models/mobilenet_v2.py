"""MobileNetV2. M. Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018."""

from typing import Literal

from cv_factory.models._torchvision_networks import (
    TorchvisionSection,
    build,
    check_available,
    initialize,
)

__all__ = ["MobileNetV2Config", "build", "check_available", "initialize"]


class MobileNetV2Config(TorchvisionSection):
    """MobileNetV2."""

    name: Literal["mobilenet_v2"] = "mobilenet_v2"
