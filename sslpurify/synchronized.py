"""BatchNorm over the rows of all processes together, under the names of ordinary BatchNorm."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

N = TypeVar("N", bound=nn.Module)
_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Sum(torch.autograd.Function):
    """The sum over all processes. Its gradient is that of the sum of all processes' losses."""

    # torch.distributed.nn.functional.all_reduce is this, and deprecated from torch 2.14 on.

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        del ctx
        total = values.detach().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        del ctx
        total = slopes[0].contiguous().clone()
        distributed.all_reduce(total)
        return total


def _sum(values: Tensor) -> Tensor:
    return _Sum.apply(values)  # pyright: ignore[reportReturnType] - torch has no types here


class GlooBatchNorm(_BatchNorm):
    """What torch.nn.SyncBatchNorm is on GPUs, for CPUs, where torch has none.

    A process may have no rows of a batch, but not all of them. The gradient that flows back is that
    of the sum of all processes' losses.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalizes (n, c, ...), in training by the mean and variance of all processes' rows."""
        if not self.training:
            return super().forward(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [axis for axis in range(values.ndim) if axis != 1]
        shape = [1, -1, *[1] * (values.ndim - 2)]
        count = values.new_tensor(values.numel() // values.shape[1], dtype=torch.float64)
        total = _sum(count).to(values)
        mean = _sum(values.sum(axes)) / total
        centred = values - mean.view(shape)
        variance = _sum(centred.square().sum(axes)) / total
        self._follow(mean.detach(), variance.detach() * (total / (total - 1)))
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        result = centred * scale.view(shape)
        return (result + self.bias.view(shape) if self.affine else result).to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics, as torch does: with the unbiased variance."""
        if self.running_mean is None or self.running_var is None:
            return
        share = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if share is None else share
        self.running_mean.lerp_(mean.to(self.running_mean), share or 0.0)
        self.running_var.lerp_(variance.to(self.running_var), share or 0.0)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        pass


def synchronize(network: N, device: torch.device) -> N:
    """Replaces every BatchNorm layer inside a network, in place, by one that sees all processes.

    Parameters, buffers, modes and the names of all of them stay.

    Args:
        network: No BatchNorm layer itself.
        device: Where it runs; decides which kind of layer it gets.

    Raises:
        TypeError: A layer is of a kind of its own, whose forward pass is not known.
    """
    make = nn.SyncBatchNorm if device.type == "cuda" else GlooBatchNorm
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if type(layer) in _PLAIN:
                setattr(parent, name, _replaced(layer, make))
            elif isinstance(layer, _BatchNorm) and type(layer) is not make:
                raise TypeError(f"{type(layer).__name__} {name!r} cannot be synchronized")
    return network


def _replaced(layer: nn.Module, make: Callable[..., _BatchNorm]) -> _BatchNorm:
    assert isinstance(layer, _BatchNorm)  # noqa: S101 - for the type checker
    fresh = make(layer.num_features, layer.eps, layer.momentum, layer.affine, device="meta")
    fresh.track_running_stats = layer.track_running_stats
    fresh.weight, fresh.bias = layer.weight, layer.bias
    fresh.running_mean, fresh.running_var = layer.running_mean, layer.running_var
    fresh.num_batches_tracked = layer.num_batches_tracked
    return fresh.train(layer.training)
