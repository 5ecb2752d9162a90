"""Matching layer by layer, as the reference implementation of TSC does it; and a clock.

For every group one pass over the data, for both networks even where they start as the same, each
pass stopped at the layer that is looked at, and correlations made of means of per-batch statistics;
then the second network is permuted and the next group follows.
"""

import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn

from sslpurify.symmetry import (
    Group,
    Permutation,
    PermutationSpec,
    Sense,
    View,
    linear_assignment,
)
from sslpurify.symmetry.scores import unit_scores


class Clock:
    """Seconds that kinds of work took: of all processor cores, and on the wall."""

    def __init__(self) -> None:
        self.cpu: defaultdict[str, float] = defaultdict(float)
        self.wall: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def on(self, work: str) -> Generator[None]:
        """Count what is done within as this kind of work."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu[work] += time.process_time() - cpu
        self.wall[work] += time.perf_counter() - wall


class _LayerReached(Exception):  # noqa: N818 - no error: it ends a forward pass early
    pass


def up_to(network: nn.Module, module: str, images: Tensor) -> Tensor:
    """The input of a module as (channels, samples), by a forward pass that stops there."""
    seen: list[Tensor] = []

    def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])
        raise _LayerReached

    handle = network.get_submodule(module).register_forward_pre_hook(stop)
    try:
        network(images)
    except _LayerReached:
        pass
    finally:
        handle.remove()
    return seen[0].transpose(0, 1).flatten(1)


def viewed(network: nn.Module, view: View, size: int, samples: Tensor) -> Tensor:
    """The channels of a view, projected where its probe says so."""
    rows = slice(view.offset, view.offset + size * view.block)
    linear = view.probe.linear
    if linear is None:
        return samples[rows]
    weights, chosen = network.state_dict(), slice(linear.start, linear.stop)
    projected = weights[linear.weight][chosen][rows] @ samples
    return (
        projected if linear.bias is None else projected + weights[linear.bias][chosen][rows, None]
    )


def layer_correlations(
    reference: nn.Module, other: nn.Module, batches: list[Tensor], group: Group
) -> list[Tensor]:
    """The correlations of one group's channels, view by view, made of statistics of batches."""
    parts: list[list[tuple[Tensor, ...]]] = [[] for _ in group.probes]
    for images in batches:
        seen = [up_to(net, group.probes[0].probe.module, images) for net in (reference, other)]
        for view, part in zip(group.probes, parts, strict=True):
            x, y = (
                viewed(reference, view, group.size, seen[0]),
                viewed(other, view, group.size, seen[1]),
            )
            product = x @ y.T / x.shape[1]
            part.append((x.mean(1), y.mean(1), x.std(1), y.std(1), product))
    return [_correlation(*(torch.stack(s).mean(0) for s in zip(*p, strict=True))) for p in parts]


def _correlation(
    mean_x: Tensor, mean_y: Tensor, std_x: Tensor, std_y: Tensor, product: Tensor
) -> Tensor:
    return (product - mean_x.outer(mean_y)) / (std_x.outer(std_y) + 1e-4)


@torch.no_grad()
def layer_by_layer(
    reference: nn.Module,
    other: nn.Module,
    batches: list[Tensor],
    spec: PermutationSpec,
    sense: Sense,
) -> Clock:
    """For every group, a pass of both networks over all images; then the second is permuted."""
    clock, other = Clock(), deepcopy(other)
    for position, group in enumerate(spec.groups):
        with clock.on("correlations"):
            matrices = layer_correlations(reference, other, batches, group)
        with clock.on("assignment"):
            scores = torch.stack(matrices).sum(0)
            if group.kind == "heads":
                probes = (view.probe for view in group.probes)
                named = dict(zip(probes, matrices, strict=True))
                scores = unit_scores(group, spec.groups[position + 1 :], named, sense)
            order = linear_assignment(scores, sense)
        with clock.on("permuting"):
            weights = other.state_dict()
            moved = Permutation(((group, order),)).apply(weights)
            for touch in group.touches:
                weights[touch.name].copy_(moved[touch.name])
    return clock
