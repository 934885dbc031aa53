"""A small convolutional network for small images: a stem, then blocks that halve the resolution."""

import torch
from torch import nn

from cv_factory.config.model import SmallCNNConfig


class SmallCNN(nn.Module):
    """Stem and blocks of convolution, batch normalization and ReLU, then a linear head."""

    def __init__(self, config: SmallCNNConfig, in_channels: int, n_classes: int) -> None:
        """Build the layers with torch's default initialization."""
        super().__init__()
        stem, *widths = config.channels
        layers: list[nn.Module] = [*_convolution(in_channels, stem)]
        for width in widths:
            # The second convolution works on the pooled image: a quarter of the cost.
            layers += [*_convolution(stem, width), nn.MaxPool2d(2, ceil_mode=True)]
            layers += _convolution(width, width)
            stem = width
        self.backbone = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(stem, n_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalized images float ``(N, C, H, W)`` to logits ``(N, K)``."""
        features = self.backbone(images).mean(dim=(2, 3))
        logits: torch.Tensor = self.head(self.dropout(features))
        return logits


def _convolution(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
