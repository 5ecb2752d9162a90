"""The permutation groups of open_clip's vision transformers (Radford et al. 2021)."""

from torch import nn

from sslpurify.encoders.specs.attention import Attention, Feedforward
from sslpurify.encoders.specs.naming import count, has, require_kind
from sslpurify.encoders.specs.transformer import (
    Layer,
    Stream,
    Transformer,
    adds,
    along,
    linear,
    packed,
    parts,
    patches,
    present,
    transformer_spec,
    vectors,
)
from sslpurify.errors import ConfigError
from sslpurify.symmetry.spec import Fixed, PermutationSpec, Probe, Touch


def open_clip_vit_spec(module: nn.Module, prefix: str = "backbone.") -> PermutationSpec:
    """Groups of a CLIP image tower: heads, qk, vo and hidden units by block, and the stream.

    The stream is free where a projection follows it, and fixed where its norm is the embedding.

    Args:
        module: open_clip's ``VisionTransformer``, of its standard or its custom blocks; only its
            layout is read, may lie on the meta device.
        prefix: Where the module lies within the network, in tensor names and module names.

    Raises:
        ConfigError: If it has an attentional pooler, scaled cosine attention, or another part that
            is not described here.
    """
    return transformer_spec(module, describe_open_clip_vit(module), prefix)


def describe_open_clip_vit(module: nn.Module) -> Transformer:
    """What the tensors of an open_clip ``VisionTransformer`` are."""
    require_kind(module, "the module", "open_clip.VisionTransformer")
    if has(module, "attn_pool"):
        raise ConfigError("attn_pool is an attentional pooler, which is not described here")
    blocks = tuple(
        f"transformer.resblocks.{name}"
        for name, _ in module.get_submodule("transformer.resblocks").named_children()
    )
    layers = tuple(_layer(module, name) for name in blocks)
    touches, fixed = patches(module, "conv1")
    touches += [
        *(Touch("class_embedding", 0), Touch("positional_embedding", 1)),
        *vectors(*along(module, "ln_pre", "ln_post")),
        *(touch for layer in layers for touch in adds(layer)),
    ]
    fixed.append(Fixed("positional_embedding", 0))
    watched, after = None, ["ln_post"]
    if has(module, "proj"):
        touches.append(Touch("proj", 0))
        fixed.append(Fixed("proj", 1))
        watched = Probe(blocks[-1], "output", "channels-last")
        after.append("proj")
    return Transformer(
        layers,
        (Stream("residual", tuple(touches), watched),),
        tuple(fixed),
        blocks,
        ("class_embedding", "positional_embedding", *present(module, "conv1", "ln_pre")),
        tuple(after),
    )


def _layer(module: nn.Module, name: str) -> Layer:
    block = module.get_submodule(name)
    kinds = ("open_clip.ResidualAttentionBlock", "open_clip.CustomResidualAttentionBlock")
    require_kind(block, name, *kinds)
    attention = block.get_submodule("attn")
    require_kind(attention, f"{name}.attn", "torch.MultiheadAttention", "open_clip.Attention")
    custom = not isinstance(attention, nn.MultiheadAttention)
    q, k, v = parts(packed(module, f"{name}.attn"), 3)
    scaled = has(attention, "head_scale")
    up, down = linear(module, f"{name}.mlp.c_fc"), linear(module, f"{name}.mlp.c_proj")
    norms = ("ln_1", "ln_2", "ls_1", "ls_2", *(("ln_attn",) if custom else ()))
    return Layer(
        Attention(
            name=f"{name}.attn",
            heads=count(attention, "num_heads"),
            reads=Probe(f"{name}.ln_1", "output", "channels-last"),
            q=q,
            k=k,
            v=v,
            out=linear(module, f"{name}.attn.out_proj"),
            along_values=along(module, f"{name}.attn.ln_inner") if custom else (),
            shared=along(module, f"{name}.attn.ln_q", f"{name}.attn.ln_k") if custom else (),
            per_head=(f"{name}.attn.head_scale",) if scaled else (),
        ),
        Feedforward(f"{name}.mlp", (up,), down, along(module, f"{name}.mlp.ln") if custom else ()),
        along(module, *(f"{name}.{norm}" for norm in norms)),
    )
