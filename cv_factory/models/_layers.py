"""Layers that torch has no module for."""

from typing import Any

import torch
from torch import nn


class GlobalMean(nn.Module):
    """The mean over height and width."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C)``."""
        return images.mean(dim=(2, 3))


class GlobalMax(nn.Module):
    """The maximum over height and width."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C)``."""
        return images.amax(dim=(2, 3))


class Scale(nn.Module):
    """A multiplication by a constant."""

    def __init__(self, factor: float) -> None:
        """Keep the factor, which is not trained."""
        super().__init__()
        self.factor = factor

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values times the factor."""
        return values * self.factor


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
