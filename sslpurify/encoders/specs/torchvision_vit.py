"""The permutation groups of torchvision's vision transformers (Dosovitskiy et al. 2021)."""

from torch import nn

from sslpurify.encoders.specs.attention import Attention, Feedforward, written
from sslpurify.encoders.specs.naming import count, require_kind
from sslpurify.encoders.specs.transformer import (
    Layer,
    Stream,
    Transformer,
    adds,
    along,
    held,
    linear,
    packed,
    parts,
    patches,
    present,
    reads,
    transformer_spec,
    vectors,
)
from sslpurify.symmetry.spec import Fixed, PermutationSpec, Probe, Touch


def torchvision_vit_spec(module: nn.Module, prefix: str = "backbone.") -> PermutationSpec:
    """Groups of a vision transformer: heads, qk, vo and hidden units by block, and the stream.

    The stream is free where a classifier reads it, and fixed where ``heads`` has been replaced by
    the identity: then its norm is the embedding.

    Args:
        module: torchvision's ``VisionTransformer``; only its layout is read, may lie on the meta
            device.
        prefix: Where the module lies within the network, in tensor names and module names.

    Raises:
        ConfigError: If a part is not described here, as a stem of convolutions or a classifier of
            several layers.
    """
    return transformer_spec(module, describe_torchvision_vit(module), prefix)


def describe_torchvision_vit(module: nn.Module) -> Transformer:
    """What the tensors of a torchvision ``VisionTransformer`` are."""
    require_kind(module, "the module", "torchvision.VisionTransformer")
    children = module.get_submodule("encoder.layers").named_children()
    blocks = tuple(f"encoder.layers.{name}" for name, _ in children)
    layers = tuple(_layer(module, name) for name in blocks)
    tokens = ("class_token", "encoder.pos_embedding")
    stream, fixed = patches(module, "conv_proj")
    stream += (Touch(name, 2) for name in tokens)
    fixed += (Fixed(name, 1) for name in tokens)
    stream += vectors(*along(module, "encoder.ln"))
    stream += (touch for layer in layers for touch in adds(layer))
    after, watched = present(module, "encoder.ln", "heads"), None
    if "heads" in after:
        head = linear(module, "heads.head")
        stream += reads(head)
        fixed += held(*written(head))
        watched = Probe(blocks[-1], "output", "channels-last")
    streams = (Stream("residual", tuple(stream), watched),)
    return Transformer(layers, streams, tuple(fixed), blocks, ("conv_proj", *tokens), after)


def _layer(module: nn.Module, name: str) -> Layer:
    require_kind(module.get_submodule(name), name, "torchvision.EncoderBlock")
    attention = module.get_submodule(f"{name}.self_attention")
    require_kind(attention, f"{name}.self_attention", "torch.MultiheadAttention")
    q, k, v = parts(packed(module, f"{name}.self_attention"), 3)
    return Layer(
        Attention(
            name=f"{name}.self_attention",
            heads=count(attention, "num_heads"),
            reads=Probe(f"{name}.ln_1", "output", "channels-last"),
            q=q,
            k=k,
            v=v,
            out=linear(module, f"{name}.self_attention.out_proj"),
        ),
        Feedforward(
            f"{name}.mlp", (linear(module, f"{name}.mlp.0"),), linear(module, f"{name}.mlp.3")
        ),
        along(module, f"{name}.ln_1", f"{name}.ln_2"),
    )
