"""A convolutional network whose frozen first layer whitens patches of the image.

In the spirit of K. Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024
(github.com/KellerJordan/cifar10-airbench): patch whitening with both signs, GELU, few wide blocks,
a head without bias. Here the whitening layer also strides, since on CPUs whatever runs at full
resolution costs most; being frozen, it needs no backward pass.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cv_factory.config.model_section import NetworkSection, Width
from cv_factory.errors import TrainingError

if TYPE_CHECKING:
    from torch import nn

    from cv_factory.transforms.fitted import FittedTransform

#: Added to the variances, relative to the largest: directions that hardly vary are not blown up.
_EPSILON = 1e-3


class WhitenedCNNConfig(NetworkSection):
    """A convolutional network whose frozen first layer whitens patches; fast on CPUs."""

    name: Literal["whitened_cnn"] = "whitened_cnn"
    stride: int = Field(2, ge=1, le=4, description="of the whitening layer, in pixels")
    channels: list[Width] = Field(
        [64, 128], min_length=1, max_length=5, description="one number a block"
    )
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    logit_scale: float = Field(1.0, gt=0.0, le=10.0, description="multiplies the head's output")


def build(config: WhitenedCNNConfig, transform: "FittedTransform") -> "nn.Module":
    """Build whitening, blocks that halve the resolution, global maximum and linear head.

    The whitening layer is set by ``initialize``.

    Raises:
        TrainingError: The images are too small for the blocks.
    """
    from torch import nn

    from cv_factory.models._layers import GlobalMax, Scale

    patches = transform.patches
    assert patches is not None  # only heads are fitted on a backbone's features
    height, width, n_channels = transform.image_shape
    padding = (patches.size - config.stride) // 2 if patches.size > config.stride else 0
    side = (min(height, width) + 2 * padding - patches.size) // config.stride + 1
    if side < 2 ** (len(config.channels) - 1):
        raise TrainingError(
            f"model.channels has {len(config.channels)} blocks and model.stride is "
            f"{config.stride}: too many for images of {height}x{width}. Give fewer blocks or a "
            "smaller stride."
        )
    n_filters = 2 * len(patches.components)
    whitening = nn.Conv2d(
        n_channels, n_filters, patches.size, stride=config.stride, padding=padding
    )
    blocks: list[nn.Module] = []
    for index, n_next in enumerate(config.channels):
        blocks += _block(n_filters, n_next, pool=index < len(config.channels) - 1)
        n_filters = n_next
    network = nn.Sequential()
    network.add_module("whitening", whitening.requires_grad_(False))
    network.add_module("relu", nn.ReLU())
    network.add_module("blocks", nn.Sequential(*blocks))
    network.add_module("pool", GlobalMax())
    network.add_module("dropout", nn.Dropout(config.dropout))
    network.add_module("head", nn.Linear(n_filters, len(transform.class_names), bias=False))
    network.add_module("scale", Scale(config.logit_scale))
    return network


def initialize(
    network: "nn.Module", config: WhitenedCNNConfig, transform: "FittedTransform"
) -> None:
    """Set the first layer: each component scaled to unit variance, and its negative.

    Both signs, since the activation behind it would lose half of each.
    """
    import numpy as np
    import torch

    patches = transform.patches
    assert patches is not None  # only heads are fitted on a backbone's features
    variances = patches.explained_variance
    scale = 1 / np.sqrt(variances + _EPSILON * variances[0])
    filters = patches.components.astype(np.float64) * scale[:, None]
    filters = np.concatenate([filters, -filters])
    bias = -filters @ patches.mean.astype(np.float64)
    whitening = network.get_submodule("whitening")
    weight = torch.from_numpy(filters.reshape(whitening.weight.shape))
    whitening.load_state_dict({"weight": weight, "bias": torch.from_numpy(bias)})


def _block(in_channels: int, out_channels: int, *, pool: bool) -> "list[nn.Module]":
    """Return convolution, pooling, convolution; the second one works on a quarter of the pixels."""
    from torch import nn

    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        *([nn.MaxPool2d(2, ceil_mode=True)] if pool else []),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]
