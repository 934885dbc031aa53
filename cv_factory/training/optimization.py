"""Optimizer and learning-rate schedule of a training.

The schedule is a function of the step alone, so that a checkpoint stores nothing of it.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from cv_factory.config.train import TrainConfig

#: One cycle: first and last learning rate as fractions of the highest, and the momentum's range.
_INITIAL_LR_RATIO, _FINAL_LR_RATIO = 1 / 25, 1 / 250_000
_MOMENTUM = (0.95, 0.85)


def _unwrap(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of torch's optimizers without what makes torch.compile leave it alone.

    The wrappers import the compiler, which takes a second that a training without it would lose.
    """
    return cast(Callable[..., Any], getattr(method, "__wrapped__", method))


class _EagerOptimizer(torch.optim.Optimizer):
    """Methods of torch's optimizers that do not import the compiler."""

    add_param_group = _unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = _unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = _unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = _unwrap(torch.optim.Optimizer.load_state_dict)


class _AdamW(_EagerOptimizer, torch.optim.AdamW):
    step = torch.no_grad()(_unwrap(torch.optim.AdamW.step))


class _SGD(_EagerOptimizer, torch.optim.SGD):
    step = torch.no_grad()(_unwrap(torch.optim.SGD.step))


def build_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build AdamW, or SGD with Nesterov momentum, over the parameters that require gradients.

    A network may have ``parameter_groups()``, which returns parameters in groups, each with its
    share of the learning rate; else all have the same.
    """
    group = getattr(network, "parameter_groups", lambda: [(network.parameters(), 1.0)])
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.requires_grad], "share": share}
        for parameters, share in group()
    ]
    if config.optimizer == "adamw":
        return _AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    return _SGD(
        groups,
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
    )


def apply_schedule(
    optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, total: int
) -> float:
    """Set the learning rates of a step (from 0, of ``total``) and return the highest.

    One cycle (L. N. Smith and N. Topin, Super-Convergence, 2018) moves the momentum against the
    learning rate as well.
    """
    learning_rate = config.learning_rate * learning_rate_factor(config, step, total)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["share"]
    if config.schedule == "one_cycle":
        high, low = _MOMENTUM
        rise, fall = _schedule_progress(config, step, total)
        # Not one formula for both: rounding would differ, and with it the bytes of a predictor.
        if fall is None:
            momentum = high + (low - high) * _cosine_ease(rise)
        else:
            momentum = low + (high - low) * _cosine_ease(fall)
        for group in optimizer.param_groups:
            if config.optimizer == "adamw":
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum
    return learning_rate


def learning_rate_factor(config: TrainConfig, step: int, total: int) -> float:
    """Return the learning rate of a step as a fraction of the highest, in [0, 1]."""
    rise, fall = _schedule_progress(config, step, total)
    if config.schedule == "one_cycle":
        if fall is None:
            return _INITIAL_LR_RATIO + (1 - _INITIAL_LR_RATIO) * _cosine_ease(rise)
        return 1 + (_FINAL_LR_RATIO - 1) * _cosine_ease(fall)
    if fall is None:
        return rise
    match config.schedule:
        case "cosine":
            return 1 - _cosine_ease(fall)
        case "linear":
            return 1 - fall
        case _:
            return 1.0


def _schedule_progress(config: TrainConfig, step: int, total: int) -> tuple[float, float | None]:
    """Return the progress of the warmup and of the decay (None during warmup), in [0, 1]."""
    warmup = config.warmup * total
    if config.schedule == "one_cycle":
        # As torch's OneCycleLR: first and last step are the ends, and a whole step is the peak.
        top, last = warmup - 1, total - 1
        if step <= top:
            return (step / top if top > 0 else 1.0), None
        return 1.0, (step - top) / (last - top)
    if step < warmup:
        # The first step has a rate above zero.
        return (step + 1) / (warmup + 1), None
    return 1.0, (step - warmup) / (total - warmup)


def _cosine_ease(progress: float) -> float:
    """Map 0..1 to 0..1 along half a cosine."""
    return (1 - math.cos(math.pi * progress)) / 2
