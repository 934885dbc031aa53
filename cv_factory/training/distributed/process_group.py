"""Process group of a training: shards, all-reduce, and batch normalization over all processes."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn


@dataclass(frozen=True)
class ProcessGroup:
    """Rank of this process, and number of processes; with one nothing is communicated."""

    rank: int = 0
    size: int = 1

    def shard(self, begin: int, end: int) -> slice:
        """Return this process's slice of the items from begin to end; the slices partition them."""
        n = end - begin
        return slice(begin + n * self.rank // self.size, begin + n * (self.rank + 1) // self.size)

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of the tensor over all processes."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    def broadcast_flag(self, flag: bool, device: torch.device) -> bool:
        """Return the flag of rank 0."""
        if self.size == 1:
            return flag
        shared = torch.tensor([flag], dtype=torch.int32, device=device)
        distributed.broadcast(shared, src=0)
        return bool(shared.item())


class _AllReduceSum(torch.autograd.Function):
    """Sum over all processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalization over the images of all processes; parameter names as in torch.

    torch's own ``SyncBatchNorm`` works on GPUs only. In evaluation mode it is torch's.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        if input.dim() not in (2, 4):
            raise ValueError(f"expected images or features, got {input.dim()} dimensions")

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalize ``(n, C)`` or ``(n, C, H, W)`` by the mean and variance of all processes."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(input)
        values = input.float()
        dims = [0, *range(2, input.dim())]
        count = torch.tensor([input.numel() / input.shape[1]], device=input.device)
        sums = torch.cat([values.sum(dims), (values * values).sum(dims), count])
        total: torch.Tensor = _AllReduceSum.apply(sums)  # type: ignore[no-untyped-call]
        channels, n = input.shape[1], total[-1].detach()
        mean = total[:channels] / n
        variance = (total[channels:-1] / n - mean * mean).clamp_min(0)
        self._update_running_stats(mean.detach(), variance.detach() * n / (n - 1))
        shape = [1, channels] + [1] * (input.dim() - 2)
        scale = torch.rsqrt(variance + self.eps)
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return (values * scale.view(shape) + shift.view(shape)).to(input.dtype)

    def _update_running_stats(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def convert_sync_batchnorm(network: nn.Module) -> None:
    """Replace every batch normalization of a network by ``GlobalBatchNorm``, in place."""
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            replacement = GlobalBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine
            ).to(next(child.buffers()).device)
            replacement.load_state_dict(child.state_dict())
            for (_, old), (_, new) in zip(
                child.named_parameters(), replacement.named_parameters(), strict=True
            ):
                new.requires_grad_(old.requires_grad)
            setattr(network, name, replacement)
        else:
            convert_sync_batchnorm(child)
