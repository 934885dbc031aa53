"""Network around a backbone of known architecture: input adapter, backbone, linear head."""

from typing import Any

import numpy as np
import torch
from torch import nn

from cv_factory.config.model_section import BackboneSection
from cv_factory.errors import TrainingError
from cv_factory.transforms.fitted import FittedTransform
from cv_factory.transforms.normalize import Normalization


class BackboneNetwork(nn.Module):
    """Resizes and colours images as the backbone wants them, then classifies its features."""

    input_scale: torch.Tensor
    input_shift: torch.Tensor

    def __init__(
        self, config: BackboneSection, backbone: nn.Module, n_features: int, n_classes: int
    ) -> None:
        """Join the parts.

        Args:
            config: Input size, dropout, and whether the backbone is frozen.
            backbone: From RGB images float ``(N, 3, H, W)`` to features ``(N, F)``.
            n_features: F.
            n_classes: Number of logits.
        """
        super().__init__()
        self._input_size = config.input_size
        self._frozen = config.freeze_backbone
        # What the backbone's weights expect, relative to normalized images.
        self.register_buffer("input_scale", torch.ones(3, 1, 1))
        self.register_buffer("input_shift", torch.zeros(3, 1, 1))
        self.backbone = backbone
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(n_features, n_classes)
        if self._frozen:
            backbone.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalized images float ``(N, C, H, W)``, grey or RGB, to logits ``(N, K)``."""
        images = images * self.input_scale + self.input_shift
        if self._input_size is not None:
            size = (self._input_size, self._input_size)
            images = nn.functional.interpolate(images, size, mode="bilinear", align_corners=False)
        logits: torch.Tensor = self.head(self.dropout(self.backbone(images).flatten(1)))
        return logits

    def train(self, mode: bool = True) -> "BackboneNetwork":
        """Switch to training; a frozen backbone keeps its statistics and drops nothing."""
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        return self


def build_backbone_network(
    config: BackboneSection, name: str, backbone: nn.Module, transform: FittedTransform
) -> BackboneNetwork:
    """Put a head behind a backbone, which is tried with one image of the right shape.

    Args:
        config: The model's section.
        name: The architecture's, for the error.
        backbone: From RGB images float ``(N, 3, H, W)`` to features that flatten to ``(N, F)``.
        transform: Gives image shape and classes.

    Raises:
        TrainingError: The images are too small for it.
    """
    height, width, _ = transform.image_shape
    size = (height, width) if config.input_size is None else (config.input_size,) * 2
    backbone.eval()
    try:
        with torch.inference_mode():
            features: torch.Tensor = backbone(torch.zeros(1, 3, *size)).flatten(1)
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(
            f"Images of {size[0]}x{size[1]} do not suit {name} ({reason}). "
            "Set model.input_size, such as 224: images are then resized inside the network."
        ) from None
    return BackboneNetwork(config, backbone, features.shape[1], len(transform.class_names))


def set_pixel_scale(
    network: BackboneNetwork, normalization: Normalization, mean: Any, std: Any
) -> None:
    """Undo the normalization of the images in favour of the one that the weights expect.

    Args:
        network: Its ``input_scale`` and ``input_shift`` are set.
        normalization: Of the images that it is given.
        mean: From 0 to 255, one number or one of each channel.
        std: Likewise.
    """
    image_std, image_mean = (
        values.astype(np.float64) for values in (normalization.std, normalization.mean)
    )
    scale, shift = image_std * 255 / std, (image_mean * 255 - mean) / std
    with torch.no_grad():
        for buffer, values in ((network.input_scale, scale), (network.input_shift, shift)):
            channels = np.broadcast_to(values, 3).astype(np.float32)
            buffer.copy_(torch.from_numpy(channels).reshape(-1, 1, 1))
