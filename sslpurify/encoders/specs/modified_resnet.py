"""The permutation groups of CLIP's ResNets (Radford et al. 2021), as open_clip builds them."""

from collections.abc import Iterator

from torch import nn

from sslpurify.encoders.specs.attention import Attention, attention_groups
from sslpurify.encoders.specs.convolutions import (
    Residual,
    between,
    conv_group,
    unmoved,
    walk,
    writes,
)
from sslpurify.encoders.specs.naming import count, described, require_kind, under
from sslpurify.symmetry.spec import Fixed, Linear, PermutationSpec, Probe, Touch

STAGES = ("layer1", "layer2", "layer3", "layer4")


def modified_resnet_spec(module: nn.Module, prefix: str = "backbone.") -> PermutationSpec:
    """Groups of a ResNet with three stem convolutions and an attention pool.

    As for torchvision's, save that the last stream is free as well: the attention pool reads it.
    The pool's heads, and the dimensions within them, follow as groups of their own; they are
    watched on the projections of what enters the pool, without the positional embedding. The
    output of the pool is the embedding and stays fixed.

    Args:
        module: open_clip's ``ModifiedResNet``; only its layout is read, may lie on the meta device.
        prefix: Where the module lies within the network, in tensor names and module names.

    Raises:
        ConfigError: If a part is of another kind than open_clip builds.
    """
    require_kind(module, "the module", "open_clip.ModifiedResNet")
    require_kind(module.get_submodule("attnpool"), "attnpool", "open_clip.AttentionPool2d")
    stem = [between(module, f"conv{i}", f"bn{i}", f"conv{i + 1}") for i in (1, 2)]
    groups, last = walk(module, writes(module, "conv3", "bn3"), _blocks(module))
    width = module.get_parameter("attnpool.q_proj.weight").shape[1]
    into = [Touch(f"attnpool.{part}_proj.weight", 1) for part in "qkv"]
    touches = [*last.touches, Touch("attnpool.positional_embedding", 1), *into]
    groups.append(conv_group(last.name, width, touches, "attnpool", "residual"))
    groups += attention_groups(_pool(module))
    fixed = (
        *unmoved(module),
        Fixed("attnpool.positional_embedding", 0),
        Fixed("attnpool.c_proj.weight", 0),
        Fixed("attnpool.c_proj.bias", 0),
    )
    return under(prefix, described(module, PermutationSpec((*stem, *groups), fixed)))


def modified_resnet_sections(module: nn.Module) -> tuple[tuple[str, ...], ...]:
    """The stem with the first stage, the second, the third, the fourth with the pool."""
    require_kind(module, "the module", "open_clip.ModifiedResNet")
    stem = tuple(f"{kind}{number}" for number in (1, 2, 3) for kind in ("conv", "bn"))
    return ((*stem, "layer1"), ("layer2",), ("layer3",), ("layer4", "attnpool"))


def _blocks(module: nn.Module) -> Iterator[Residual]:
    for stage in STAGES:
        for number, block in module.get_submodule(stage).named_children():
            require_kind(block, f"{stage}.{number}", "open_clip.Bottleneck")
            yield Residual(f"{stage}.{number}", 3)


def _pool(module: nn.Module) -> Attention:
    pool = module.get_submodule("attnpool")
    q, k, v, out = (
        Linear(
            f"attnpool.{part}.weight",
            f"attnpool.{part}.bias",
            0,
            len(pool.get_parameter(f"{part}.weight")),
        )
        for part in ("q_proj", "k_proj", "v_proj", "c_proj")
    )
    return Attention("attnpool", count(pool, "num_heads"), Probe("attnpool"), q, k, v, out)
