"""The permutation groups of timm's vision transformers (Dosovitskiy et al. 2021)."""

from torch import nn

from sslpurify.encoders.specs.attention import Attention, Feedforward, written
from sslpurify.encoders.specs.naming import count, has, is_a, require_kind
from sslpurify.encoders.specs.transformer import (
    Layer,
    Stream,
    Transformer,
    adds,
    along,
    held,
    linear,
    outputs,
    parts,
    patches,
    present,
    reads,
    transformer_spec,
    vectors,
)
from sslpurify.symmetry.spec import Fixed, PermutationSpec, Probe, Touch

TOKENS = ("cls_token", "reg_token", "pos_embed")


def timm_vit_spec(module: nn.Module, prefix: str = "backbone.") -> PermutationSpec:
    """Groups of a vision transformer: heads, qk, vo and hidden units by block, and the stream.

    With norms of queries and keys, which all heads share, qk is one group for all heads. The stream
    is free where a classifier or an attention pool (SigLIP, Zhai et al. 2023) reads it, and fixed
    where its norm is the embedding. The pool's latent query stays as it is: it is the same for
    every image, so that nothing tells its units apart.

    Args:
        module: timm's ``VisionTransformer`` with plain or SwiGLU feed-forward layers; only its
            layout is read, may lie on the meta device.
        prefix: Where the module lies within the network, in tensor names and module names.

    Raises:
        ConfigError: If a part is not described here: another block, attention with rotary
            embeddings or gates, another pool, patches from a ResNet.
    """
    return transformer_spec(module, describe_timm_vit(module), prefix)


def describe_timm_vit(module: nn.Module) -> Transformer:
    """What the tensors of a timm ``VisionTransformer`` are."""
    require_kind(module, "the module", "timm.VisionTransformer")
    require_kind(module.get_submodule("patch_embed"), "patch_embed", "timm.PatchEmbed")
    blocks = tuple(f"blocks.{name}" for name, _ in module.get_submodule("blocks").named_children())
    layers = [_layer(module, name) for name in blocks]
    tokens = tuple(name for name in TOKENS if has(module, name))
    trunk, fixed = patches(module, "patch_embed.proj")
    trunk += (Touch(name, 2) for name in tokens)
    fixed += (Fixed(name, 1) for name in tokens)
    trunk += vectors(*along(module, "patch_embed.norm", "norm_pre", "norm"))
    trunk += (touch for layer in layers for touch in adds(layer))
    last = [*vectors(*along(module, "fc_norm"))]
    classified = Probe("head", layout="channels-last") if has(module, "head.weight") else None
    if classified is not None:
        head = linear(module, "head")
        last += reads(head)
        fixed += held(*written(head))
    watched = Probe(blocks[-1], "output", "channels-last")
    if has(module, "attn_pool"):
        pool = _pool(module)
        layers.append(pool)
        trunk += reads(pool.attention.k)
        fixed += held(Touch("attn_pool.latent", 1), Touch("attn_pool.latent", 2))
        fixed += held(*reads(pool.attention.q))
        streams = (
            Stream("residual", tuple(trunk), watched),
            Stream("attn_pool.residual", (*outputs(pool), *last), classified),
        )
    else:
        streams = (Stream("residual", (*trunk, *last), classified and watched),)
    before = (*tokens, *present(module, "patch_embed", "norm_pre"))
    after = present(module, "norm", "attn_pool", "fc_norm", "head")
    return Transformer(tuple(layers), streams, tuple(fixed), blocks, before, after)


def _layer(module: nn.Module, name: str) -> Layer:
    require_kind(module.get_submodule(name), name, "timm.Block")
    attention = module.get_submodule(f"{name}.attn")
    require_kind(attention, f"{name}.attn", "timm.Attention")
    q, k, v = parts(linear(module, f"{name}.attn.qkv"), 3)
    return Layer(
        Attention(
            name=f"{name}.attn",
            heads=count(attention, "num_heads"),
            reads=Probe(f"{name}.attn.qkv", layout="channels-last"),
            q=q,
            k=k,
            v=v,
            out=linear(module, f"{name}.attn.proj"),
            along_values=along(module, f"{name}.attn.norm"),
            shared=along(module, f"{name}.attn.q_norm", f"{name}.attn.k_norm"),
        ),
        _feedforward(module, f"{name}.mlp"),
        along(module, *(f"{name}.{part}" for part in ("norm1", "norm2", "ls1", "ls2"))),
    )


def _pool(module: nn.Module) -> Layer:
    pool = module.get_submodule("attn_pool")
    require_kind(pool, "attn_pool", "timm.AttentionPoolLatent")
    k, v = parts(linear(module, "attn_pool.kv"), 2)
    return Layer(
        Attention(
            name="attn_pool",
            heads=count(pool, "num_heads"),
            reads=Probe("attn_pool", layout="channels-last"),
            q=linear(module, "attn_pool.q"),
            k=k,
            v=v,
            out=linear(module, "attn_pool.proj"),
            shared=along(module, "attn_pool.q_norm", "attn_pool.k_norm"),
            latent=True,
        ),
        _feedforward(module, "attn_pool.mlp"),
        along(module, "attn_pool.norm"),
    )


def _feedforward(module: nn.Module, name: str) -> Feedforward:
    """One projection, a gate beside what it gates, or both in one."""
    layer = module.get_submodule(name)
    require_kind(layer, name, "timm.Mlp", "timm.SwiGLU", "timm.GluMlp")
    if is_a(layer, "timm.SwiGLU"):
        up = (linear(module, f"{name}.fc1_g"), linear(module, f"{name}.fc1_x"))
    else:
        up = parts(linear(module, f"{name}.fc1"), 2 if is_a(layer, "timm.GluMlp") else 1)
    return Feedforward(name, up, linear(module, f"{name}.fc2"), along(module, f"{name}.norm"))
