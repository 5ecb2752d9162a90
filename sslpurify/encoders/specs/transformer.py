"""A vision transformer as data: tensor names in, permutation groups and sections out.

Every family says with the classes of this file what its tensors are; what follows from that is
written once, here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from sslpurify.encoders.specs.attention import (
    Attention,
    Feedforward,
    attention_groups,
    feedforward_group,
    written,
)
from sslpurify.encoders.specs.convolutions import plain_convolution
from sslpurify.encoders.specs.naming import described, has, is_a, under
from sslpurify.errors import ConfigError
from sslpurify.symmetry.spec import Fixed, Group, Linear, PermutationSpec, Probe, Touch, View

Sections = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Layer:
    """An attention and a feed-forward layer that add to a residual stream."""

    attention: Attention
    feedforward: Feedforward
    along_stream: tuple[str, ...]
    """Vectors of norms and layer scales."""


@dataclass(frozen=True)
class Stream:
    """A residual stream: all that writes to it and all that reads it.

    Args:
        name: What its group is called.
        touches: Where its units lie.
        probe: Where it is watched; None: it comes out as the embedding and stays fixed.
    """

    name: str
    touches: tuple[Touch, ...]
    probe: Probe | None


@dataclass(frozen=True)
class Transformer:
    """A vision transformer.

    Args:
        layers: The trunk's blocks, and an attention pool if there is one.
        streams: Of the trunk, and of the pool.
        fixed: Image channels, kernels, positions, and what else no group reaches.
        blocks: Names of the trunk's blocks.
        before: Names of the modules and bare parameters that run before the first block.
        after: Those that run after the last one.
    """

    layers: tuple[Layer, ...]
    streams: tuple[Stream, ...]
    fixed: tuple[Fixed, ...]
    blocks: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]


def transformer_spec(module: nn.Module, transformer: Transformer, prefix: str) -> PermutationSpec:
    """The permutation groups of a transformer, complete for the module's own tensors.

    Raises:
        ConfigError: If the description does not account for all of the module's tensors.
    """
    groups: list[Group] = []
    fixed = [*transformer.fixed]
    for layer in transformer.layers:
        groups += attention_groups(layer.attention)
        groups.append(feedforward_group(layer.feedforward))
    for stream in transformer.streams:
        if stream.probe is None:
            fixed += held(*stream.touches)
        else:
            first = stream.touches[0]
            size = module.state_dict()[first.name].shape[first.dim]
            views = (View(stream.probe),)
            groups.append(Group(stream.name, size, stream.touches, views, "residual"))
    unique = tuple(dict.fromkeys(fixed))
    return under(prefix, described(module, PermutationSpec(tuple(groups), unique)))


def sections(transformer: Transformer) -> Sections:
    """The blocks in four about equal parts, or one by one if there are fewer than four.

    What runs before the blocks goes with the first part, what runs after them with the last.
    """
    blocks, parts = transformer.blocks, min(4, len(transformer.blocks))
    cuts = [part * len(blocks) // parts for part in range(parts + 1)]
    result = [blocks[start:stop] for start, stop in pairwise(cuts)]
    result[0] = (*transformer.before, *result[0])
    result[-1] = (*result[-1], *transformer.after)
    return tuple(result)


def adds(layer: Layer) -> Iterator[Touch]:
    """Where a stream's units lie in a layer that reads it and adds to it."""
    yield from reads(layer.attention.q, layer.attention.k, layer.attention.v)
    yield from outputs(layer)


def outputs(layer: Layer) -> Iterator[Touch]:
    """As `adds`, without the queries, keys and values: they read another stream in a pool."""
    yield from vectors(*layer.along_stream)
    yield from written(layer.attention.out)
    yield from reads(*layer.feedforward.up)
    yield from written(layer.feedforward.down)


def reads(*linears: Linear) -> Iterator[Touch]:
    """The columns of projections, once for each weight."""
    yield from (Touch(name, 1) for name in dict.fromkeys(linear.weight for linear in linears))


def vectors(*names: str) -> Iterator[Touch]:
    """Vectors that lie along a stream."""
    yield from (Touch(name, 0) for name in names)


def held(*touches: Touch) -> Iterator[Fixed]:
    """These axes as fixed."""
    yield from (Fixed(touch.name, touch.dim) for touch in touches)


def patches(module: nn.Module, name: str) -> tuple[list[Touch], list[Fixed]]:
    """What a convolution that embeds patches writes to a stream, and its other axes.

    Raises:
        ConfigError: If the module of this name is no plain convolution.
    """
    writes = [Touch(f"{name}.{kind}", 0) for kind in plain_convolution(module, name).state_dict()]
    return writes, [Fixed(f"{name}.weight", dim) for dim in (1, 2, 3)]


def present(module: nn.Module, *names: str) -> tuple[str, ...]:
    """Those of these sub-modules that have tensors."""
    return tuple(n for n in names if has(module, n) and module.get_submodule(n).state_dict())


def linear(module: nn.Module, name: str) -> Linear:
    """All rows of a linear layer.

    Raises:
        ConfigError: If the module of this name is not one.
    """
    layer = module.get_submodule(name)
    if not isinstance(layer, nn.Linear):
        raise ConfigError(f"{name} is no linear layer but {type(layer).__name__}")
    bias = f"{name}.bias" if has(layer, "bias") else None
    return Linear(f"{name}.weight", bias, 0, layer.out_features)


def packed(module: nn.Module, name: str) -> Linear:
    """The projection to queries, keys and values of attention that packs them into one."""
    attention = module.get_submodule(name)
    bias = f"{name}.in_proj_bias" if has(attention, "in_proj_bias") else None
    rows = len(attention.get_parameter("in_proj_weight"))
    return Linear(f"{name}.in_proj_weight", bias, 0, rows)


def parts(fused: Linear, count: int) -> tuple[Linear, ...]:
    """The equal parts of a fused projection."""
    size = (fused.stop - fused.start) // count
    return tuple(
        Linear(fused.weight, fused.bias, start, start + size)
        for start in range(fused.start, fused.stop, size)
    )


def along(module: nn.Module, *names: str) -> tuple[str, ...]:
    """The vectors of norms and layer scales, by the names of the modules.

    Raises:
        ConfigError: If one of them is neither, nor the identity.
    """
    found: list[str] = []
    for name in names:
        layer = module.get_submodule(name)
        if not isinstance(layer, _CHANNEL_WISE) and not is_a(layer, *_SCALES):
            raise ConfigError(f"{name} is {type(layer).__name__}, which is not described here")
        found += (f"{name}.{vector}" for vector in layer.state_dict())
    return tuple(found)


_CHANNEL_WISE = (nn.LayerNorm, nn.RMSNorm, nn.Identity)
_SCALES = (
    "open_clip.LayerScale",
    "timm.LayerScale",
    "timm.RmsNorm",
    "transformers.Dinov2LayerScale",
)
