"""BatchNorm statistics of a network whose weights are new: measured, never interpolated."""

from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from sslpurify.compute import PLAIN, Compute
from sslpurify.processes import Processes


class _Moments:
    """Exact mean and variance of one layer's input, merged batch by batch (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def observe(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """A forward pre-hook."""
        values = inputs[0].detach()
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        axes = [axis for axis in range(values.ndim) if axis != 1]
        variance, mean = torch.var_mean(values, dim=axes, correction=0)
        self.merge(values.numel() // values.shape[1], mean.double(), variance.double())

    def merge(self, count: int, mean: Tensor, variance: Tensor) -> None:
        """Counts ``count`` more samples of this mean and (biased) variance."""
        if count == 0:
            return
        total = self.count + count
        drift = mean - self.mean
        self.squares = self.squares + variance * count + drift**2 * (self.count * count / total)
        self.mean = self.mean + drift * (count / total)
        self.count = total

    def merged(self, layer: _BatchNorm, processes: Processes) -> "_Moments":
        """Those of the samples of all processes together."""
        if processes.count == 1:
            return self
        zeros = torch.zeros(layer.num_features, dtype=torch.float64)
        count = torch.full_like(zeros[:1], self.count)
        mean, variance = (
            (zeros + each.cpu()) for each in (self.mean, self.squares / max(1, self.count))
        )
        result = _Moments()
        for seen in processes.gather(torch.cat([count, mean, variance])[None]):
            count, mean, variance = seen[0].split([1, len(zeros), len(zeros)])
            result.merge(int(count), mean, variance)
        return result


def reestimate(
    network: nn.Module,
    batches: Iterable[Tensor],
    compute: Compute = PLAIN,
    *,
    kept: Collection[nn.Module] = (),
) -> None:
    """Measures the running statistics of every BatchNorm layer over all batches, in place.

    As in training, each batch is normalized by its own statistics on its way through. The mean and
    the (unbiased) variance are those of all samples together, whatever the batch sizes. Everything
    else, dropout included, runs in evaluation mode; modes and momentum are left as they were. A
    layer that no batch reaches keeps its statistics. Where processes share the work, each brings
    its rows of every batch, and statistics are those of all rows, on the way and in the end.

    Args:
        network: Changed in place: only ``running_mean``, ``running_var`` and
            ``num_batches_tracked`` of its BatchNorm layers.
        batches: Images as the network takes them, (n, 3, h, w) with n of at least 2; views like
            those that training sees.
        compute: Device and precision of the passes.
        kept: Parts of the network whose statistics are used and kept as they are.

    Raises:
        ValueError: There is no batch.
    """
    inside = {module for part in kept for module in part.modules()}
    layers = [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and module not in inside
    ]
    if not layers:
        return
    with _observed(network, layers) as moments, torch.no_grad():
        for batch in batches:
            with compute.autocast():
                network(batch.to(compute.device))
    moments = [
        observed.merged(layer, compute.processes)
        for layer, observed in zip(layers, moments, strict=True)
    ]
    if not any(observed.count for observed in moments):
        raise ValueError("BatchNorm statistics need at least one batch")
    for layer, observed in zip(layers, moments, strict=True):
        if observed.count and layer.running_mean is not None and layer.running_var is not None:
            layer.running_mean.copy_(observed.mean)
            layer.running_var.copy_(observed.squares / max(1, observed.count - 1))


@contextmanager
def _observed(network: nn.Module, layers: list[_BatchNorm]) -> Generator[list[_Moments]]:
    modes = [(module, module.training) for module in network.modules()]
    moments = [_Moments() for _ in layers]
    hooks = [
        layer.register_forward_pre_hook(observer.observe)
        for layer, observer in zip(layers, moments, strict=True)
    ]
    network.eval()
    for layer in layers:
        layer.train()
    try:
        yield moments
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
