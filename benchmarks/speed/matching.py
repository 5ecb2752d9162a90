"""One-pass matching against layer-by-layer matching, on a full-size ResNet-50.

    python benchmarks/speed/matching.py [--images 32] [--groups all|inner] [--json]

Both sides match the same groups (all: 32 inside blocks and 4 residual streams) at the same places,
in float32, on the same noise images of 224x224 in batches of 16, assignment included; nothing is
applied to weights. Layer by layer is written as the reference implementation of TSC does it: for
every group one pass over the data, for both networks even where they are the same, each pass
stopped at the layer that is looked at, and correlations made of means of per-batch statistics.
Weights are random: they do not change what a pass costs.

256 images take a quarter of an hour layer by layer on two cores, so 32 are the default; both sides
grow in proportion, save the assignment, which only the ratio of small runs suffers from. One pass
is timed before and after the long run and averaged, for machines that others use too.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import ResNet, resnet50

from sslpurify.encoders.specs.resnet import resnet_spec
from sslpurify.rng import generator
from sslpurify.symmetry import PermutationSpec, Sense, correlate, linear_assignment, match

BATCH = 16


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


@torch.no_grad()
def layer_by_layer(
    reference: nn.Module,
    other: nn.Module,
    batches: list[Tensor],
    spec: PermutationSpec,
    sense: Sense,
) -> list[Tensor]:
    """For every group, a pass of both networks over all images."""
    orders = []
    for group in spec.groups:
        module = group.probes[0].probe.module
        parts: list[tuple[Tensor, ...]] = []
        for images in batches:
            x, y = up_to(reference, module, images), up_to(other, module, images)
            product = x @ y.T / x.shape[1]
            parts.append((x.mean(1), y.mean(1), x.std(1), y.std(1), product))
        mean_x, mean_y, std_x, std_y, product = (
            torch.stack(statistic).mean(0) for statistic in zip(*parts, strict=True)
        )
        covariance = product - mean_x.outer(mean_y)
        orders.append(linear_assignment(covariance / (std_x.outer(std_y) + 1e-4), sense))
    return orders


def one_pass(
    reference: nn.Module,
    other: nn.Module | None,
    batches: list[Tensor],
    spec: PermutationSpec,
    sense: Sense,
) -> list[Tensor]:
    """The package's own way."""
    correlations = correlate(reference, other, batches, spec)
    return [order for _, order in match(spec, correlations, sense).steps]


@torch.no_grad()
def plain_forward(network: nn.Module, batches: list[Tensor]) -> None:
    """A forward pass over all images, in the memory order that one-pass matching uses."""
    for images in batches:
        network(images.contiguous(memory_format=torch.channels_last))


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of a piece of work."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def random_network(*stream: str) -> ResNet:
    """A ResNet-50 in eval mode with weights drawn from a named stream."""
    network = resnet50().eval()
    source = generator(0, *stream)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            module.weight.data.normal_(0, (2 / fan_out) ** 0.5, generator=source)
    network.fc = nn.Identity()
    return network


@dataclass(frozen=True)
class Timing:
    """Seconds of the two ways."""

    layers: float
    one_pass: float

    @property
    def ratio(self) -> float:
        """How many times faster one pass is."""
        return self.layers / self.one_pass


def compare(
    reference: nn.Module,
    other: nn.Module | None,
    batches: list[Tensor],
    spec: PermutationSpec,
    sense: Sense,
) -> Timing:
    """Time both ways of one kind of matching."""
    own = lambda: one_pass(reference, other, batches, spec, sense)  # noqa: E731
    before = seconds(own)
    layers = seconds(lambda: layer_by_layer(reference, other or reference, batches, spec, sense))
    return Timing(layers, (before + seconds(own)) / 2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--groups", choices=("all", "inner"), default="all")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()

    reference, other = random_network("reference"), random_network("other")
    spec = resnet_spec(reference, "")
    spec = spec if options.groups == "all" else spec.select({"inner"})
    noise = torch.rand(options.images, 3, 224, 224, generator=generator(0, "images"))
    batches = list(noise.split(BATCH))
    plain_forward(reference, batches[:1])  # the first pass pays for memory and code

    forward = seconds(lambda: plain_forward(reference, batches))
    misalign = compare(reference, None, batches, spec, "misalign")
    align = compare(reference, other, batches, spec, "align")
    forward = (forward + seconds(lambda: plain_forward(reference, batches))) / 2
    report = {
        "ratio": misalign.ratio,
        "align_ratio": align.ratio,
        "images": options.images,
        "forward_ratio": misalign.one_pass / forward,
        "groups": len(spec.groups),
        "threads": torch.get_num_threads(),
    }
    if options.json:
        print(json.dumps(report))
        return
    print(f"ResNet-50, {len(spec.groups)} groups, {options.images} images, threads:", end=" ")
    print(report["threads"])
    print(f"{'':10}{'layer by layer':>16}{'one pass':>12}{'ratio':>8}")
    for name, timing in (("misalign", misalign), ("align", align)):
        print(f"{name:10}{timing.layers:14.1f} s{timing.one_pass:10.2f} s{timing.ratio:7.1f}x")
    print(f"one misaligning pass costs {report['forward_ratio']:.2f} plain forward passes")


if __name__ == "__main__":
    main()
