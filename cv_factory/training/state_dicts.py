"""State of a network and its optimizer as named arrays, and back.

Restored tensors keep their memory layout: sums over another layout differ by rounding.
"""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import nn


def to_arrays(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors as contiguous arrays on the CPU; ``prefix`` is put before each name."""
    return {f"{prefix}{k}": v.detach().cpu().contiguous().numpy() for k, v in tensors.items()}


def load_weights(network: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy parameters and buffers into a network in place."""
    network.load_state_dict(dict(weights))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimizer's state tensors by ``parameter number/name``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}/{name}": value
        for number, entries in state.items()
        for name, value in entries.items()
        if value is not None
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Restore what ``optimizer_tensors`` returned; the schedule sets the learning rates."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split("/")
        like = parameters[int(number)]
        if value.shape == like.shape and value.dim():
            value = torch.empty_like(like, requires_grad=False).copy_(value)
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
