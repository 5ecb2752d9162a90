"""One-pass matching against layer-by-layer matching, on a full-size ResNet-50 or CLIP.

    python benchmarks/speed/matching.py [--arch open_clip/RN50] [--images 32]
        [--groups all|channels|inner] [--senses misalign align] [--json]

Both sides match the same groups at the same places, in float32, on the same noise images of 224x224
in batches of 16, assignment included. Layer by layer is written as the reference implementation of
TSC does it (layer_by_layer.py). Weights are random: they do not change what a pass costs.

torchvision's ResNet-50 has 36 groups: 32 inside blocks and 4 residual streams. open_clip's RN50 has
39 of channels, and 65 more in its attention pool: heads, and the dimensions within them. Those all
lie at the end of the network, so that layer by layer they cost 65 whole passes: `--groups channels`
leaves them out.

256 images take a quarter of an hour layer by layer on two cores, so 32 are the default. Collecting
correlations grows with the images on both sides; the assignment does not, and costs the same on
both, so that the ratio of all work is lower the fewer images there are. One pass is timed before
and after the long run and averaged, for machines that others use too; CPU seconds suffer least.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from layer_by_layer import Clock, layer_by_layer
from torch import Tensor, nn
from torchvision.models import resnet50

from sslpurify.encoders import create
from sslpurify.encoders.specs.resnet import resnet_spec
from sslpurify.rng import generator
from sslpurify.symmetry import PermutationSpec, Sense, correlate, match
from sslpurify.symmetry.spec import Kind

BATCH = 16
GROUPS: Mapping[str, tuple[Kind, ...]] = {
    "all": ("inner", "residual", "heads", "qk", "vo"),
    "channels": ("inner", "residual"),
    "inner": ("inner",),
}
RATIOS: Mapping[Sense, str] = {"misalign": "ratio", "align": "align_ratio"}


def one_pass(
    reference: nn.Module,
    other: nn.Module | None,
    batches: list[Tensor],
    spec: PermutationSpec,
    sense: Sense,
) -> Clock:
    """The package's own way."""
    clock = Clock()
    with clock.on("correlations"):
        correlations = correlate(reference, other, batches, spec)
    with clock.on("assignment"):
        match(spec, correlations, sense)
    return clock


@torch.no_grad()
def plain_forward(network: nn.Module, batches: list[Tensor]) -> None:
    """A forward pass over all images, in the memory order that one-pass matching uses."""
    for images in batches:
        network(images.contiguous(memory_format=torch.channels_last))


def random_network(arch: str, *stream: str) -> tuple[nn.Module, PermutationSpec]:
    """A network in eval mode with weights drawn from a named stream, and its groups."""
    if arch == "resnet50":
        network: nn.Module = resnet50().eval()
        spec = resnet_spec(network, "")
        network.add_module("fc", nn.Identity())
    else:
        encoder = create(arch, quick_gelu=True)
        network, spec = encoder.fresh(0).eval(), encoder.spec
    source = generator(0, *stream)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            module.weight.data.normal_(0, (2 / fan_out) ** 0.5, generator=source)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data.fill_(1)  # open_clip makes the last of each block 0
    return network, spec


@dataclass(frozen=True)
class Timing:
    """What the two ways took; one pass twice."""

    layers: Clock
    passes: tuple[Clock, Clock]

    def ratio(self, clock: Literal["cpu", "wall"], *work: str) -> float:
        """How many times faster one pass is at these kinds of work, or in all."""
        layers, *passes = (getattr(each, clock) for each in (self.layers, *self.passes))
        spent = [sum(each[kind] for kind in work or each) for each in (layers, *passes)]
        return 2 * spent[0] / sum(spent[1:])

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "cpu_ratio": self.ratio("cpu"),
            "wall_ratio": self.ratio("wall"),
            "correlations_cpu_ratio": self.ratio("cpu", "correlations"),
            "correlations_wall_ratio": self.ratio("wall", "correlations"),
            "layers_cpu_seconds": dict(self.layers.cpu),
            "one_pass_cpu_seconds": {
                work: sum(clock.cpu[work] for clock in self.passes) / 2
                for work in self.passes[0].cpu
            },
        }


def compare(
    reference: nn.Module,
    other: nn.Module | None,
    batches: list[Tensor],
    spec: PermutationSpec,
    sense: Sense,
) -> Timing:
    """Time both ways of one kind of matching."""
    before = one_pass(reference, other, batches, spec, sense)
    layers = layer_by_layer(reference, other or reference, batches, spec, sense)
    return Timing(layers, (before, one_pass(reference, other, batches, spec, sense)))


def table(timings: Mapping[str, Timing]) -> str:
    """For people."""
    lines = [f"{'CPU seconds':24}{'layer by layer':>16}{'one pass':>12}{'ratio':>9}{'wall':>9}"]
    for name, timing in timings.items():
        for work in ("correlations", "assignment", ""):
            kinds = [work] if work else [*timing.layers.cpu]
            layers = sum(timing.layers.cpu[kind] for kind in kinds)
            mean = sum(clock.cpu[kind] for clock in timing.passes for kind in kinds) / 2
            ratios = (timing.ratio(clock, *kinds) for clock in ("cpu", "wall"))
            lines.append(
                f"{name + ', ' + (work or 'all'):24}{layers:14.1f} s{mean:10.2f} s"
                + "".join(f"{ratio:8.1f}x" for ratio in ratios)
            )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--arch", default="resnet50", help="resnet50, or open_clip/RN50, ...")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--groups", choices=list(GROUPS), default="all")
    parser.add_argument("--senses", nargs="+", choices=list(RATIOS), default=list(RATIOS))
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()

    reference, spec = random_network(options.arch, "reference")
    other, _ = random_network(options.arch, "other")
    spec = spec.select(GROUPS[options.groups])
    noise = torch.rand(options.images, 3, 224, 224, generator=generator(0, "images"))
    batches = list(noise.split(BATCH))
    plain_forward(reference, batches[:1])  # the first pass pays for memory and code

    forward = Clock()
    with forward.on("forward"):
        plain_forward(reference, batches)
    timings = {
        sense: compare(reference, other if sense == "align" else None, batches, spec, sense)
        for sense in options.senses
    }
    with forward.on("forward"):
        plain_forward(reference, batches)
    report: dict[str, Any] = {
        **{RATIOS[sense]: timing.ratio("wall") for sense, timing in timings.items()},
        "arch": options.arch,
        "images": options.images,
        "groups": len(spec.groups),
        "threads": torch.get_num_threads(),
        "forward_cpu_seconds": forward.cpu["forward"] / 2,
        **{sense: timing.to_json() for sense, timing in timings.items()},
    }
    if options.json:
        print(json.dumps(report))
        return
    print(f"{options.arch}, {len(spec.groups)} groups, {options.images} images, ", end="")
    print(f"{report['threads']} threads")
    print(table(timings))
    print(f"a plain forward pass takes {report['forward_cpu_seconds']:.2f} CPU seconds")


if __name__ == "__main__":
    main()
