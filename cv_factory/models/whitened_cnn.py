"""A convolutional network whose frozen first layer whitens patches of the image.

In the spirit of K. Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024
(github.com/KellerJordan/cifar10-airbench): patch whitening with both signs, GELU, few wide blocks,
a head without bias. Here the whitening layer also strides, since on CPUs whatever runs at full
resolution costs most; being frozen, it needs no backward pass.
"""

import numpy as np
import torch
from torch import nn

from cv_factory.config.model import WhitenedCNNConfig
from cv_factory.errors import TrainingError
from cv_factory.transforms.patches import PatchPCA

#: Added to the variances, relative to the largest: directions that hardly vary are not blown up.
_EPSILON = 1e-3


class WhitenedCNN(nn.Module):
    """Whitening, blocks that halve the resolution, global maximum, linear head."""

    def __init__(
        self,
        config: WhitenedCNNConfig,
        patches: PatchPCA,
        image_shape: tuple[int, int, int],
        n_classes: int,
    ) -> None:
        """Build the layers; the whitening layer is set by ``set_whitening``.

        Raises:
            TrainingError: The images are too small for the blocks.
        """
        super().__init__()
        height, width, channels = image_shape
        padding = (patches.size - config.stride) // 2 if patches.size > config.stride else 0
        n_filters = 2 * len(patches.components)
        self.whitening = nn.Conv2d(
            channels, n_filters, patches.size, stride=config.stride, padding=padding
        )
        self.whitening.requires_grad_(False)
        side = (min(height, width) + 2 * padding - patches.size) // config.stride + 1
        if side < 2 ** (len(config.channels) - 1):
            raise TrainingError(
                f"model.channels has {len(config.channels)} blocks and model.stride is "
                f"{config.stride}: too many for images of {height}x{width}. Give fewer blocks or a "
                "smaller stride."
            )
        layers: list[nn.Module] = []
        for index, n_channels in enumerate(config.channels):
            layers += _block(n_filters, n_channels, pool=index < len(config.channels) - 1)
            n_filters = n_channels
        self.blocks = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(n_filters, n_classes, bias=False)
        self.logit_scale = config.logit_scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalized images float ``(N, C, H, W)`` to logits ``(N, K)``."""
        whitened = nn.functional.relu(self.whitening(images))
        features = self.blocks(whitened).amax(dim=(2, 3))
        logits: torch.Tensor = self.head(self.dropout(features)) * self.logit_scale
        return logits


def set_whitening(network: nn.Module, patches: PatchPCA) -> None:
    """Set the first layer: each component scaled to unit variance, and its negative.

    Both signs, since the activation behind it would lose half of each.
    """
    assert isinstance(network, WhitenedCNN), "built above"
    variances = patches.explained_variance
    scale = 1 / np.sqrt(variances + _EPSILON * variances[0])
    filters = patches.components.astype(np.float64) * scale[:, None]
    filters = np.concatenate([filters, -filters])
    bias = -filters @ patches.mean.astype(np.float64)
    shape = network.whitening.weight.shape
    with torch.no_grad():
        network.whitening.weight.copy_(torch.from_numpy(filters.reshape(shape)))
        assert network.whitening.bias is not None, "built with one"
        network.whitening.bias.copy_(torch.from_numpy(bias))


def _block(in_channels: int, out_channels: int, *, pool: bool) -> list[nn.Module]:
    """Return convolution, pooling, convolution; the second one works on a quarter of the pixels."""
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        *([nn.MaxPool2d(2, ceil_mode=True)] if pool else []),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]
