"""Layers that torch has no module for."""

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
