"""Hugging Face models: CLIP and SigLIP with both towers, and vision-only ViT and DINOv2.

The architecture is ``hf``; which it is, the ``config.json`` beside the weights says. Models are
built from that configuration by transformers' own classes, never by code of the checkpoint; weights
come from our own reader.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    PretrainedConfig,
    PreTrainedModel,
    SiglipConfig,
    SiglipTextModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)
from transformers.core_model_loading import revert_weight_conversion

from sslpurify.encoders import specs
from sslpurify.encoders.encoder import BACKBONE, Channels, Encoder, Spelling, below, shapes_of
from sslpurify.encoders.normalization import CLIP, HALF, IMAGENET
from sslpurify.encoders.sizes import require_modest
from sslpurify.encoders.text import TextSide, TextTower, Tokenize
from sslpurify.errors import ConfigError
from sslpurify.symmetry.spec import PermutationSpec, Shapes


@dataclass(frozen=True)
class _Kind:
    """One ``model_type``: how its vision part is built, read, and normalized for."""

    config: Callable[[Mapping[str, Any]], PretrainedConfig]
    model: Callable[[Any], PreTrainedModel]
    read: Callable[[Any], Tensor]
    normalization: tuple[Channels, Channels]


def read_projected(outputs: Any) -> Tensor:
    """``image_embeds`` or ``text_embeds`` of a tower with a projection."""
    for name in ("image_embeds", "text_embeds"):
        if isinstance(getattr(outputs, name, None), Tensor):
            return getattr(outputs, name)
    raise TypeError(f"transformers returned {type(outputs).__name__} without projected embeddings")


def read_pooled(outputs: Any) -> Tensor:
    """``pooler_output``; transformers 5 returns it where version 4 returned a bare tensor."""
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(getattr(outputs, "pooler_output", None), Tensor):
        return outputs.pooler_output
    raise TypeError(f"transformers returned {type(outputs).__name__} without a pooler_output")


def read_class_token(outputs: Any) -> Tensor:
    """The class token of the last hidden state, behind the final LayerNorm."""
    return outputs.last_hidden_state[:, 0]


def _vision_part(kind: type[PretrainedConfig], tower: type[PretrainedConfig]) -> Callable[..., Any]:
    def config(data: Mapping[str, Any]) -> PretrainedConfig:
        whole: Any = kind.from_dict(dict(data))
        vision = whole.vision_config
        if kind is CLIPConfig:
            vision.projection_dim = whole.projection_dim
        assert isinstance(vision, tower)  # noqa: S101 - what the pair of classes means
        return vision

    return config


def _alone(kind: type[PretrainedConfig]) -> Callable[..., Any]:
    def config(data: Mapping[str, Any]) -> PretrainedConfig:
        return kind.from_dict(dict(data))

    return config


_KINDS = {
    "clip": _Kind(
        _vision_part(CLIPConfig, CLIPVisionConfig),
        CLIPVisionModelWithProjection,
        read_projected,
        CLIP,
    ),
    "clip_vision_model": _Kind(
        _alone(CLIPVisionConfig), CLIPVisionModelWithProjection, read_projected, CLIP
    ),
    "siglip": _Kind(
        _vision_part(SiglipConfig, SiglipVisionConfig), SiglipVisionModel, read_pooled, HALF
    ),
    "siglip_vision_model": _Kind(_alone(SiglipVisionConfig), SiglipVisionModel, read_pooled, HALF),
    "vit": _Kind(
        _alone(ViTConfig), partial(ViTModel, add_pooling_layer=False), read_class_token, HALF
    ),
    "dinov2": _Kind(_alone(Dinov2Config), Dinov2Model, read_class_token, IMAGENET),
}


def hf_encoder(
    config: Mapping[str, Any],
    *,
    image_size: int | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    tokenizer: Path | None = None,
) -> Encoder:
    """The encoder that a ``config.json`` describes.

    Args:
        config: Its content.
        image_size: In pixels; the configuration's unless given.
        mean: Of the normalization; the family's usual one unless given (the caller reads
            ``preprocessor_config.json``).
        std: Likewise.
        tokenizer: Folder with the tokenizer's files.

    Raises:
        ConfigError: A model that is not described here, or a configuration that is damaged.
        UnsafeInputError: A configuration with absurd sizes.
    """
    require_modest("config.json", config)
    name = str(config.get("model_type"))[:40]
    kind = _KINDS.get(name)
    if kind is None:
        raise ConfigError(
            f"config.json: model_type {name!r} is not supported; those are {', '.join(_KINDS)}"
        )
    wanted = json.dumps(_resized(dict(config), image_size), sort_keys=True)
    vision = _config(name, wanted)
    if vision.num_hidden_layers < 1:
        raise ConfigError(f"config.json: a {name} without layers")
    shapes, groups, sections, spellings = _described(name, wanted)
    usual_mean, usual_std = kind.normalization
    return Encoder(
        name=f"hf/{name}",
        family="vit",
        image_size=vision.image_size,
        fixed_size=True,
        mean=mean or usual_mean,
        std=std or usual_std,
        embedding_dim=_embedding_dim(vision),
        shapes=shapes,
        groups=groups,
        sections=sections,
        backbone=partial(_vision, name, wanted),
        read=kind.read,
        spellings=spellings,
        text=_text_side(name, wanted, tokenizer),
    )


def _resized(config: dict[str, Any], image_size: int | None) -> dict[str, Any]:
    if image_size is None:
        return config
    part = config.get("vision_config")
    if isinstance(part, dict):
        return config | {"vision_config": part | {"image_size": image_size}}
    return config | {"image_size": image_size}


@cache
def _config(name: str, config: str) -> Any:
    try:
        return _KINDS[name].config(json.loads(config))
    except Exception as error:
        raise ConfigError(f"config.json: no {name} can be built from it: {error}") from error


def _embedding_dim(vision: Any) -> int:
    projected = isinstance(vision, CLIPVisionConfig)
    return int(vision.projection_dim if projected else vision.hidden_size)


def _vision(name: str, config: str) -> PreTrainedModel:
    described = _plain_attention(_config(name, config))
    try:
        return _KINDS[name].model(described)
    except Exception as error:
        raise ConfigError(f"config.json: no {name} can be built from it: {error}") from error


def _plain_attention(config: Any) -> Any:
    """Attention by torch: another implementation named in the file may be a download."""
    config._attn_implementation = "sdpa"  # noqa: SLF001
    return config


@cache
def _described(
    name: str, config: str
) -> tuple[Shapes, PermutationSpec, tuple[tuple[str, ...], ...], tuple[Spelling, ...]]:
    with torch.device("meta"):
        module = _vision(name, config)
    state = module.state_dict()
    sections = below(BACKBONE, specs.sections_of(module))
    return (
        shapes_of(module),
        specs.hf_vision_spec(module, BACKBONE),
        sections,
        _spellings(module, state),
    )


def _spellings(module: PreTrainedModel, state: Mapping[str, Tensor]) -> tuple[Spelling, ...]:
    """The names that transformers itself writes, where they differ from the module's."""
    names = {id(tensor): name for name, tensor in state.items()}
    written = revert_weight_conversion(module, dict(state))
    spelling = {names[id(tensor)]: key for key, tensor in written.items() if id(tensor) in names}
    other = {name: key for name, key in spelling.items() if name != key}
    return (other,) if other else ()


def _text_side(name: str, config: str, tokenizer: Path | None) -> TextSide | None:
    if name not in ("clip", "siglip"):
        return None
    make = partial(_text_tower, name, config)
    with torch.device("meta"):
        shapes = shapes_of(make())
    length = int(json.loads(config).get("text_config", {}).get("max_position_embeddings", 77))
    length = length if name == "clip" else min(length, 64)
    return TextSide(shapes, make, hf_tokenizer(tokenizer, length), _text_names)


def _text_tower(name: str, config: str) -> TextTower:
    data = json.loads(config)
    try:
        if name == "clip":
            whole: Any = CLIPConfig.from_dict(data)
            text = whole.text_config
            text.projection_dim = whole.projection_dim
            return TextTower(CLIPTextModelWithProjection(_plain_attention(text)), read_projected)
        text = SiglipConfig.from_dict(data).text_config
        return TextTower(SiglipTextModel(_plain_attention(text)), read_pooled, logit_bias=True)
    except Exception as error:
        raise ConfigError(f"config.json: no text tower can be built from it: {error}") from error


def _text_names(name: str) -> tuple[str, ...]:
    inner = name.removeprefix("network.")
    return (inner,) if inner == name else (inner, f"text_model.{inner}")


def hf_tokenizer(folder: Path | None, length: int) -> Tokenize:
    """The tokenizer whose files lie in a folder; read when the first caption is tokenized.

    Args:
        folder: Holds ``tokenizer.json``, or vocabulary and merges; None: there is none.
        length: Tokens of a caption; longer ones are cut, shorter ones padded.
    """

    @cache
    def tokenizer() -> Any:
        if folder is None or not folder.is_dir():
            raise ConfigError("captions need the tokenizer's files; give their folder: --tokenizer")
        try:
            return AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        except Exception as error:
            raise ConfigError(f"{folder}: no tokenizer can be read from it: {error}") from error

    def tokenize(captions: Any) -> Tensor:
        made = tokenizer()(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        return made["input_ids"]

    return tokenize
