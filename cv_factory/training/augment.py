"""Random crops and mirror images of whole batches of tensors at once."""

import torch


def pad(images: torch.Tensor, padding: int) -> torch.Tensor:
    """Repeat the border pixels ``padding`` times: uint8 ``(N, H, W, C)`` grows on every side."""
    if padding == 0:
        return images
    height, width = images.shape[1:3]
    rows = torch.arange(-padding, height + padding).clamp(0, height - 1)
    columns = torch.arange(-padding, width + padding).clamp(0, width - 1)
    return images[:, rows][:, :, columns]


def random_crop(
    padded: torch.Tensor, indices: torch.Tensor, padding: int, generator: torch.Generator
) -> torch.Tensor:
    """Cut a window at a random offset out of each padded image.

    Args:
        padded: uint8 ``(N, H + 2 p, W + 2 p, C)``.
        indices: Which images, int64 ``(n,)``.
        padding: p in pixels.
        generator: Source of randomness.

    Returns:
        uint8 ``(n, H, W, C)``.
    """
    if padding == 0:
        return padded[indices]
    n = len(indices)
    height, width = padded.shape[1] - 2 * padding, padded.shape[2] - 2 * padding
    offsets = torch.randint(0, 2 * padding + 1, (2, n, 1), generator=generator)
    rows = offsets[0] + torch.arange(height)
    columns = offsets[1] + torch.arange(width)
    return padded[indices[:, None, None], rows[:, :, None], columns[:, None, :]]


def random_flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror each image ``(n, H, W, C)`` left to right with probability one half."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flip[:, None, None, None], images.flip(2), images)
