"""The permutation groups of Hugging Face's vision transformers: CLIP, SigLIP, ViT and DINOv2.

Names differ from one release of transformers to the next, so they are found by what the modules
are: the patches' embedding tells the trunk, projections go by the last part of their name, and
whatever else has weights in a block must be a norm or a layer scale.
"""

from dataclasses import dataclass

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
    packed,
    parts,
    patches,
    reads,
    transformer_spec,
    vectors,
)
from sslpurify.errors import ConfigError
from sslpurify.symmetry.spec import Fixed, PermutationSpec, Probe, Touch, fixed_axes

ROOTS = (
    "transformers.CLIPVisionModel",
    "transformers.CLIPVisionModelWithProjection",
    "transformers.Dinov2Model",
    "transformers.SiglipVisionModel",
    "transformers.ViTModel",
)
EMBEDDINGS = (
    "transformers.CLIPVisionEmbeddings",
    "transformers.Dinov2Embeddings",
    "transformers.SiglipVisionEmbeddings",
    "transformers.ViTEmbeddings",
)
BLOCKS = (
    "transformers.CLIPEncoderLayer",
    "transformers.Dinov2Layer",
    "transformers.SiglipEncoderLayer",
    "transformers.ViTLayer",
)


def hf_vision_spec(module: nn.Module, prefix: str = "backbone.") -> PermutationSpec:
    """Groups of a vision transformer: heads, qk, vo and hidden units by block, and the stream.

    The stream is free where a projection (CLIP) or an attention pool (SigLIP) reads it, whose
    output is then the embedding. Otherwise it is fixed: its last norm is the embedding, also
    beneath the pooler of a ``ViTModel``. The pool's latent query stays as it is: it is the same for
    every image, so that nothing tells its units apart.

    Args:
        module: A ``CLIPVisionModelWithProjection`` (the vision part of a ``CLIPModel`` has the same
            names), ``CLIPVisionModel``, ``SiglipVisionModel`` (``SiglipModel.vision_model``),
            ``ViTModel`` or ``Dinov2Model``; only its layout is read, may lie on the meta device.
        prefix: Where the module lies within the network, in tensor names and module names.

    Raises:
        ConfigError: If the module is of another class, or holds a part that is not described here.
    """
    return transformer_spec(module, describe_hf_vision(module), prefix)


@dataclass(frozen=True)
class _Trunk:
    """Where the parts of a vision tower are."""

    path: str
    embeddings: str
    blocks: tuple[str, ...]
    norms: tuple[str, ...]
    heads: int


def describe_hf_vision(module: nn.Module) -> Transformer:
    """What the tensors of a Hugging Face vision module are."""
    require_kind(module, "the module", *ROOTS)
    trunk = _trunk(module)
    layers = [_layer(module, name, trunk.heads) for name in trunk.blocks]
    stream, fixed = _embedded(module, trunk.embeddings)
    stream += vectors(*along(module, *trunk.norms))
    stream += (touch for layer in layers for touch in adds(layer))
    streams: list[Stream] = []
    watched, after = None, [name for name in trunk.norms if not _early(name)]
    pool, pooler = f"{trunk.path}head", f"{trunk.path}pooler"
    if has(module, pool):
        watched = Probe(trunk.blocks[-1], "output", "channels-last")
        layers.append(_pool(module, pool, trunk))
        packed_q_k_v, width = layers[-1].attention.q.weight, layers[-1].attention.q.stop
        stream.append(Touch(packed_q_k_v, 1, select=(0, width, 3 * width)))
        fixed += held(Touch(packed_q_k_v, 1), Touch(f"{pool}.probe", 2))
        streams.append(Stream("head.residual", tuple(outputs(layers[-1])), None))
        after.append(pool)
    if has(module, pooler):
        tensors = module.get_submodule(pooler).state_dict().items()
        fixed += fixed_axes({f"{pooler}.{name}": tuple(value.shape) for name, value in tensors})
        after.append(pooler)
    if has(module, "visual_projection"):
        watched = Probe(trunk.blocks[-1], "output", "channels-last")
        projection = linear(module, "visual_projection")
        stream += reads(projection)
        fixed += held(*written(projection))
        after.append("visual_projection")
    before = (trunk.embeddings, *(name for name in trunk.norms if _early(name)))
    streams.insert(0, Stream("residual", tuple(stream), watched))
    return Transformer(
        tuple(layers), tuple(streams), tuple(fixed), trunk.blocks, before, tuple(after)
    )


def _trunk(module: nn.Module) -> _Trunk:
    embeddings = [name for name, part in module.named_modules() if is_a(part, *EMBEDDINGS)]
    if len(embeddings) != 1:
        raise ConfigError(f"{type(module).__name__} embeds patches in an unknown way")
    parent = embeddings[0].rpartition(".")[0]
    path, holder = parent and f"{parent}.", module.get_submodule(parent)
    return _Trunk(
        path,
        embeddings[0],
        tuple(path + name for name, part in holder.named_modules() if is_a(part, *BLOCKS)),
        tuple(path + name for name, part in holder.named_children() if isinstance(part, _NORMS)),
        count(holder.config, "num_attention_heads"),
    )


_NORMS = nn.LayerNorm | nn.RMSNorm


def _early(norm: str) -> bool:
    """Whether a norm runs before the blocks: only CLIP has one there."""
    return norm.rpartition(".")[2].startswith("pre")


def _embedded(module: nn.Module, name: str) -> tuple[list[Touch], list[Fixed]]:
    """What embeddings write to the stream: patches, tokens, positions, each along its last axis."""
    embeddings = module.get_submodule(name)
    (patch,) = (n for n, part in embeddings.named_modules() if isinstance(part, nn.Conv2d))
    touches, fixed = patches(module, f"{name}.{patch}")
    for tensor, value in embeddings.state_dict().items():
        if not tensor.startswith(f"{patch}."):
            touches.append(Touch(f"{name}.{tensor}", value.ndim - 1))
            fixed += (Fixed(f"{name}.{tensor}", dim) for dim in range(value.ndim - 1))
    return touches, fixed


def _layer(module: nn.Module, name: str, heads: int) -> Layer:
    block = module.get_submodule(name)
    linears = {
        path.rpartition(".")[2]: f"{name}.{path}"
        for path, part in block.named_modules()
        if isinstance(part, nn.Linear)
    }
    attention = _attention(module, name, heads, linears)
    feedforward = _feedforward(module, f"{name}.mlp", linears)
    others = [
        f"{name}.{path}"
        for path, part in block.named_modules()
        if not isinstance(part, nn.Linear) and [*part.parameters(recurse=False)]
    ]
    return Layer(attention, feedforward, along(module, *others))


def _attention(module: nn.Module, name: str, heads: int, linears: dict[str, str]) -> Attention:
    q, k, v = (linear(module, _one(linears, name, f"{part}_proj")) for part in "qkv")
    return Attention(
        name=f"{name}.attention",
        heads=heads,
        reads=Probe(_one(linears, name, "q_proj"), layout="channels-last"),
        q=q,
        k=k,
        v=v,
        out=linear(module, _one(linears, name, "out_proj", "o_proj")),
    )


def _feedforward(module: nn.Module, name: str, linears: dict[str, str]) -> Feedforward:
    gated = "gate_proj" in linears
    into = ("gate_proj", "up_proj") if gated else ("fc1",)
    up = tuple(linear(module, _one(linears, name, part)) for part in into)
    down = linear(module, _one(linears, name, "down_proj" if gated else "fc2"))
    return Feedforward(name, up, down)


def _one(linears: dict[str, str], name: str, *parts: str) -> str:
    for part in parts:
        if part in linears:
            return linears[part]
    raise ConfigError(f"{name} has no linear layer called {' or '.join(parts)}")


def _pool(module: nn.Module, name: str, trunk: _Trunk) -> Layer:
    head = module.get_submodule(name)
    require_kind(head, name, "transformers.SiglipMultiheadAttentionPoolingHead")
    q, k, v = parts(packed(module, f"{name}.attention"), 3)
    return Layer(
        Attention(
            name=f"{name}.attention",
            heads=count(head.get_submodule("attention"), "num_heads"),
            reads=Probe(trunk.norms[-1], "output", "channels-last"),
            q=q,
            k=k,
            v=v,
            out=linear(module, f"{name}.attention.out_proj"),
            latent=True,
        ),
        Feedforward(
            f"{name}.mlp", (linear(module, f"{name}.mlp.fc1"),), linear(module, f"{name}.mlp.fc2")
        ),
        along(module, f"{name}.layernorm"),
    )
