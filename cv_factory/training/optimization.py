"""The optimizer, its schedule and the weights of the classes, as the configuration names them.

The schedule is a function of the position alone, so that a training that is continued needs nothing
stored of it.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cv_factory.config.train import TrainConfig

#: One cycle: learning rates at its begin and end, as shares of the highest, and momentum's range.
_FIRST, _LAST = 1 / 25, 1 / 250_000
_MOMENTUM = (0.95, 0.85)


def build_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build AdamW, or SGD with Nesterov momentum, over the parameters that are trained."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
    return torch.optim.SGD(
        parameters,
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
    )


def apply_schedule(
    optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, total: int
) -> float:
    """Set the learning rate of a step (from 0, of ``total``) and return it.

    One cycle (L. N. Smith and N. Topin, Super-Convergence, 2018) moves the momentum against the
    learning rate as well.
    """
    group = optimizer.param_groups[0]
    group["lr"] = config.learning_rate * learning_rate_share(config, step, total)
    if config.schedule == "one_cycle":
        high, low = _MOMENTUM
        rise, fall = _phases(config, step, total)
        momentum = (
            high + (low - high) * _ease(rise) if fall is None else low + (high - low) * _ease(fall)
        )
        if config.optimizer == "adamw":
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum
    return float(group["lr"])


def learning_rate_share(config: TrainConfig, step: int, total: int) -> float:
    """Return the learning rate of a step as a share of the highest."""
    rise, fall = _phases(config, step, total)
    if config.schedule == "one_cycle":
        if fall is None:
            return _FIRST + (1 - _FIRST) * _ease(rise)
        return 1 + (_LAST - 1) * _ease(fall)
    if fall is None:
        return rise
    match config.schedule:
        case "cosine":
            return 1 - _ease(fall)
        case "linear":
            return 1 - fall
        case _:
            return 1.0


def _phases(config: TrainConfig, step: int, total: int) -> tuple[float, float | None]:
    """Return how far the rise has come, and the fall that follows it (None before), in [0, 1]."""
    warmup = config.warmup * total
    if config.schedule == "one_cycle":
        # The first and the last step stand at the ends, and one of them at the top.
        top, last = warmup - 1, total - 1
        if step <= top:
            return (step / top if top > 0 else 1.0), None
        return 1.0, (step - top) / (last - top)
    if step < warmup:
        # No step is wasted on a rate of zero.
        return (step + 1) / (warmup + 1), None
    return 1.0, (step - warmup) / (total - warmup)


def _ease(share: float) -> float:
    """Go from 0 to 1 on half a cosine."""
    return (1 - math.cos(math.pi * share)) / 2


def class_weights(
    labels: npt.NDArray[np.int64], n_classes: int, config: TrainConfig
) -> torch.Tensor | None:
    """Return the weight of each class, float32 ``(K,)``, or None where all count the same.

    Balanced weights are ``N / (K n_k)``, as in scikit-learn; a class without images gets 0.
    """
    if config.class_weights == "none":
        return None
    counts = np.bincount(labels, minlength=n_classes)
    weights = len(labels) / (n_classes * np.maximum(counts, 1)) * (counts > 0)
    return torch.from_numpy(weights.astype(np.float32))
