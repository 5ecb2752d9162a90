"""open_clip's models: a ModifiedResNet, ViT or SigLIP image tower, and the text tower beside it.

An architecture is named ``open_clip/<name>`` with one of open_clip's built-in names, or
``open_clip/<file>.json`` with a model configuration of its form. Models are built from the
configuration alone; weights come from our own reader, and nothing is ever downloaded.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from functools import cache, partial
from typing import Any

import torch
from open_clip.factory import get_model_config, list_models
from open_clip.model import (
    _build_text_tower,  # pyright: ignore[reportPrivateUsage]
    _build_vision_tower,  # pyright: ignore[reportPrivateUsage]
)
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from sslpurify.encoders import specs
from sslpurify.encoders.encoder import BACKBONE, Channels, Encoder, Family, below, shapes_of
from sslpurify.encoders.normalization import CLIP, HALF
from sslpurify.encoders.sizes import require_modest
from sslpurify.encoders.text import TextSide, TextTower, Tokenize
from sslpurify.errors import ConfigError
from sslpurify.symmetry.spec import PermutationSpec, Shapes

_INNER = "network."


def built_in(name: str) -> dict[str, Any]:
    """open_clip's own configuration of this name.

    Raises:
        ConfigError: There is none.
    """
    config = get_model_config(name) if name in list_models() else None
    if config is None:
        raise ConfigError(
            f"open_clip/{name}: open_clip has no model of this name; `open_clip.list_models()` "
            "lists its names, and a configuration of your own is given as open_clip/<file>.json"
        )
    return config


def undecided_activation(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a built-in name stands for weights with GELU and for weights with QuickGELU."""
    return "quick_gelu" not in config and f"{name}-quickgelu" in list_models()


def open_clip_encoder(
    name: str,
    config: Mapping[str, Any],
    *,
    quick_gelu: bool | None = None,
    image_size: int | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    tokenize: Tokenize | None = None,
) -> Encoder:
    """The encoder of an open_clip model configuration.

    Args:
        name: As on the command line.
        config: ``embed_dim``, ``vision_cfg`` and ``text_cfg``, as in open_clip's own files.
        quick_gelu: Overrides the configuration's activation.
        image_size: In pixels; the configuration's unless given.
        mean: Of the normalization; OpenAI's, or 0.5 for SigLIP, unless given.
        std: Likewise.
        tokenize: For models whose tokenizer is no part of open_clip.

    Raises:
        ConfigError: The configuration is no such model, or needs what is not on this machine.
    """
    wanted = _chosen(name, config, quick_gelu, image_size)
    text = json.dumps(wanted, sort_keys=True)
    family, shapes, groups, sections = _described(name, text)
    usual_mean, usual_std = HALF if "siglip" in name.lower() else CLIP
    return Encoder(
        name=name,
        family=family,
        image_size=_square(name, wanted["vision_cfg"].get("image_size", 224)),
        fixed_size=True,
        mean=mean or usual_mean,
        std=std or usual_std,
        embedding_dim=int(wanted["embed_dim"]),
        shapes=shapes,
        groups=groups,
        sections=sections,
        backbone=partial(_visual, name, text),
        text=_text_side(name, wanted, tokenize),
    )


@cache
def _described(
    name: str, config: str
) -> tuple[Family, Shapes, PermutationSpec, tuple[tuple[str, ...], ...]]:
    with torch.device("meta"):
        module = _visual(name, config)
    shapes = shapes_of(module)
    if isinstance(module, ModifiedResNet):
        groups = specs.modified_resnet_spec(module, BACKBONE)
        return "modified-resnet", shapes, groups, below(BACKBONE, specs.sections_of(module))
    if isinstance(module, VisionTransformer):
        if not module.transformer.resblocks:
            raise ConfigError(f"{name}: an image tower without layers")
        if module.output_tokens:
            raise ConfigError(f"{name}: an image tower that gives tokens as well (CoCa)")
        groups = specs.open_clip_vit_spec(module, BACKBONE)
        return "vit", shapes, groups, below(BACKBONE, specs.sections_of(module))
    if isinstance(module, TimmModel) and not list(module.head.parameters()):
        trunk = f"{BACKBONE}trunk."
        groups = specs.timm_vit_spec(module.trunk, trunk)  # raises for other networks than ViTs
        _require_size(name, module.trunk, json.loads(config)["vision_cfg"])
        return "vit", shapes, groups, below(trunk, specs.sections_of(module.trunk))
    raise ConfigError(
        f"{name}: an image tower of type {type(module).__name__}; those described here are "
        "open_clip's ModifiedResNet and VisionTransformer, and timm's ViT without a projection"
    )


def _require_size(name: str, trunk: Any, vision: Mapping[str, Any]) -> None:
    """open_clip leaves a trunk at the size that its name means, whatever size is asked for."""
    has, wanted = trunk.patch_embed.img_size[0], _square(name, vision.get("image_size", 224))
    if has != wanted:
        raise ConfigError(
            f"{name}: {vision['timm_model_name']} takes images of {has} pixels, not {wanted}"
        )


def _chosen(
    name: str, config: Mapping[str, Any], quick_gelu: bool | None, image_size: int | None
) -> dict[str, Any]:
    """The configuration with what the user decided written in, fit to be built without a hub."""
    wanted = {key: deepcopy(config[key]) for key in config}
    towers = [wanted.get(key) for key in ("vision_cfg", "text_cfg")]
    if not isinstance(wanted.get("embed_dim"), int) or not all(isinstance(t, dict) for t in towers):
        raise ConfigError(
            f"{name}: an open_clip model configuration has embed_dim, vision_cfg and text_cfg"
        )
    require_modest(name, wanted)
    if quick_gelu is not None:
        wanted["quick_gelu"] = quick_gelu
    if image_size is not None:
        wanted["vision_cfg"]["image_size"] = image_size
    wanted["vision_cfg"]["timm_model_pretrained"] = False
    return wanted


def _square(name: str, size: Any) -> int:
    if isinstance(size, (list, tuple)) and len(set(size)) == 1:
        size = size[0]
    if not isinstance(size, int):
        raise ConfigError(f"{name}: images of {size} pixels are not square")
    return size


def _visual(name: str, config: str) -> nn.Module:
    wanted = json.loads(config)
    vision = wanted["vision_cfg"]
    trunk = vision.get("timm_model_name")
    if trunk is not None:
        from timm import list_models as trunks

        if trunk not in trunks():  # a hub's name would be looked up on the network
            raise ConfigError(f"{name}: timm has no model called {str(trunk)[:80]!r}")
    try:
        return _build_vision_tower(wanted["embed_dim"], vision, wanted.get("quick_gelu", False))
    except Exception as error:
        raise ConfigError(f"{name}: no image tower can be built from it: {error}") from error


def _text_side(name: str, wanted: Mapping[str, Any], tokenize: Tokenize | None) -> TextSide | None:
    text = wanted["text_cfg"]
    if "hf_model_name" in text:  # its layout is on the hub, not in the configuration
        return None
    make = partial(_text_tower, name, json.dumps(dict(wanted), sort_keys=True))
    with torch.device("meta"):
        shapes = shapes_of(make())
    return TextSide(shapes, make, tokenize or _tokenizer(name, text), _names)


def _text_tower(name: str, config: str) -> TextTower:
    wanted = json.loads(config)
    try:
        network = _build_text_tower(
            wanted["embed_dim"], wanted["text_cfg"], wanted.get("quick_gelu", False)
        )
    except Exception as error:
        raise ConfigError(f"{name}: no text tower can be built from it: {error}") from error
    return TextTower(network, logit_bias="init_logit_bias" in wanted)


def _names(name: str) -> tuple[str, ...]:
    """In a CLIP the text tower's tensors lie at the top, in a CustomTextCLIP under ``text``."""
    inner = name.removeprefix(_INNER)
    return (inner,) if inner == name else (inner, f"text.{inner}")


def _tokenizer(name: str, text: Mapping[str, Any]) -> Tokenize:
    if text.get("hf_tokenizer_name") or "siglip" in name.lower():

        def missing(_: object) -> Tensor:
            raise ConfigError(
                f"{name}: its tokenizer is no part of open_clip; give the folder with its "
                "tokenizer.json as --tokenizer"
            )

        return missing
    length = text.get("context_length", 77)
    return lambda captions: _simple_tokenizer(length)(list(captions))


@cache
def _simple_tokenizer(length: int) -> SimpleTokenizer:
    return SimpleTokenizer(context_length=length)
