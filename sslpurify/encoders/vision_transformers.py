"""ViTs of torchvision and timm as self-supervised backbones (SimCLR, MoCo v3, DINO).

An architecture is named ``torchvision/vit_b_16`` or ``timm/vit_small_patch16_224``, by the name the
library itself gives it; classifiers are left off.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from sslpurify.encoders import specs
from sslpurify.encoders.encoder import BACKBONE, Channels, Encoder, below, shapes_of
from sslpurify.encoders.head import HeadLayout, default_head
from sslpurify.encoders.normalization import IMAGENET
from sslpurify.errors import ConfigError
from sslpurify.symmetry.spec import PermutationSpec, Shapes


def vit_encoder(
    name: str,
    *,
    image_size: int | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    head: HeadLayout | None = None,
) -> Encoder:
    """The encoder of a library's ViT.

    Args:
        name: ``torchvision/<name>`` or ``timm/<name>``.
        image_size: In pixels; the library's for this name unless given.
        mean: Of the normalization; ImageNet's, or what timm says of the name, unless given.
        std: Likewise.
        head: Shape of the projection head; the usual one unless given.

    Raises:
        ConfigError: The library has no such model, or it is no plain ViT.
    """
    library, _, model = name.partition("/")
    make, size, (usual_mean, usual_std) = _LIBRARIES[library](name, model, image_size)
    shapes, groups, sections = _described(library, model, size)
    dim = shapes[_PATCHES[library]][0]
    return Encoder(
        name=name,
        family="vit",
        image_size=size,
        fixed_size=True,
        mean=mean or usual_mean,
        std=std or usual_std,
        embedding_dim=dim,
        shapes=shapes,
        groups=groups,
        sections=sections,
        backbone=make,
        head=head or default_head(dim),
    )


def _torchvision(
    name: str, model: str, image_size: int | None
) -> tuple[partial[nn.Module], int, tuple[Channels, Channels]]:
    names = [n for n in torchvision.models.list_models(torchvision.models) if n.startswith("vit_")]
    if model not in names:
        raise ConfigError(f"{name}: torchvision's ViTs are {', '.join(names)}")
    size = image_size or 224
    return partial(_torchvision_vit, model, size), size, IMAGENET


def _torchvision_vit(model: str, size: int) -> nn.Module:
    try:
        vit: Any = torchvision.models.get_model(model, weights=None, image_size=size)
    except (ValueError, AssertionError) as error:
        raise ConfigError(f"torchvision/{model} at {size} pixels: {error}") from error
    vit.heads = nn.Identity()
    return vit


def _timm(
    name: str, model: str, image_size: int | None
) -> tuple[partial[nn.Module], int, tuple[Channels, Channels]]:
    if model not in timm.list_models("*vit*"):  # a hub's name would be looked up on the network
        raise ConfigError(f"{name}: timm has no ViT of this name; `timm.list_models()` lists them")
    usual: Any = timm.get_pretrained_cfg(model, allow_unregistered=False)
    known = usual is not None
    size = image_size or (usual.input_size[1] if known else 224)
    normalization = (tuple(usual.mean), tuple(usual.std)) if known else IMAGENET
    return partial(_timm_vit, model, size), size, normalization  # pyright: ignore[reportReturnType]


def _timm_vit(model: str, size: int) -> nn.Module:
    try:
        return timm.create_model(model, pretrained=False, num_classes=0, img_size=size)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"timm/{model} at {size} pixels: {error}") from error


_PATCHES = {"torchvision": "conv_proj.weight", "timm": "patch_embed.proj.weight"}
_LIBRARIES: dict[str, Callable[..., Any]] = {"torchvision": _torchvision, "timm": _timm}


@cache
def _described(
    library: str, model: str, size: int
) -> tuple[Shapes, PermutationSpec, tuple[tuple[str, ...], ...]]:
    with torch.device("meta"):
        module = (_torchvision_vit if library == "torchvision" else _timm_vit)(model, size)
    describe = specs.torchvision_vit_spec if library == "torchvision" else specs.timm_vit_spec
    sections = below(BACKBONE, specs.sections_of(module))
    return shapes_of(module), describe(module, BACKBONE), sections
