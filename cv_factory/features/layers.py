"""Layers around a backbone: what its images are normalized by, and the mean of its features."""

from typing import Any

import torch
from torch import nn


class MeanFeatures(nn.Module):
    """A network's ``extract_features``, averaged over height and width."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap a network whose ``extract_features`` maps images to ``(N, F, h, w)``."""
        super().__init__()
        self.network: Any = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, F)``."""
        features: torch.Tensor = self.network.extract_features(images).mean(dim=(2, 3))
        return features


class NormalizedBackbone(nn.Module):
    """A backbone behind the normalization that its weights expect."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        """Join both.

        Args:
            network: From normalized RGB images to features that flatten to ``(N, F)``.
            mean: Of each channel, from 0 to 255.
            std: Likewise.
        """
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map RGB images float ``(N, 3, S, S)`` from 0 to 255 to features ``(N, F)``."""
        features: torch.Tensor = self.network((pixels - self.mean) / self.std).flatten(1)
        return features
