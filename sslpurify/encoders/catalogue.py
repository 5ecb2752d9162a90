"""Every architecture by its name on the command line."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from open_clip.factory import get_model_config, list_models

from sslpurify.checkpoint import read_json
from sslpurify.encoders.encoder import Channels, Encoder
from sslpurify.encoders.head import HeadLayout
from sslpurify.encoders.huggingface import hf_encoder, hf_tokenizer
from sslpurify.encoders.open_clip import built_in, open_clip_encoder, undecided_activation
from sslpurify.encoders.simclr import simclr_architectures, simclr_encoder
from sslpurify.encoders.vision_transformers import vit_encoder
from sslpurify.errors import ConfigError, SslPurifyError
from sslpurify.types import State

FORMS = (
    "simclr/resnet18 (34, 50, -wN, -cifar), open_clip/<name> or open_clip/<config.json>, hf (a "
    "folder with config.json or open_clip_config.json), torchvision/vit_b_16, "
    "timm/vit_small_patch16_224"
)
_USUAL_VITS = (
    *(f"torchvision/vit_{size}" for size in ("b_16", "b_32", "l_16", "l_32", "h_14")),
    *(f"timm/vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large")),
    *("timm/vit_small_patch8_224", "timm/vit_base_patch8_224", "timm/vit_base_patch32_224"),
)


def create(
    architecture: str,
    *,
    image_size: int | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    head: HeadLayout | None = None,
    quick_gelu: bool | None = None,
    config: Mapping[str, Any] | None = None,
    tokenizer: Path | None = None,
) -> Encoder:
    """The encoder of this name.

    Args:
        architecture: As on the command line.
        image_size: In pixels; the architecture's usual size unless given.
        mean: Of the normalization; the family's usual one unless given.
        std: Likewise.
        head: Shape of the projection head, for the families whose loss needs one.
        quick_gelu: Whether an open_clip model has QuickGELU; None: as its configuration says.
        config: Content of the ``config.json`` beside Hugging Face weights, or of the
            ``open_clip_config.json`` beside open_clip's, whose mean and std are the usual ones.
        tokenizer: Folder with a tokenizer's files, for models whose own is not built in.

    Raises:
        ConfigError: There is no such architecture, or something that it takes is missing.
    """
    family, _, rest = architecture.partition("/")
    look: dict[str, Any] = {"image_size": image_size, "mean": mean, "std": std}
    if family == "simclr":
        return simclr_encoder(architecture, head=head, **look)
    if family in ("torchvision", "timm"):
        return vit_encoder(architecture, head=head, **look)
    if family == "hf":
        if config is None:
            raise ConfigError("--arch hf is for a folder with a config.json; name that folder")
        if "model_cfg" not in config:
            return hf_encoder(config, tokenizer=tokenizer, **look)
        described = config
    elif family == "open_clip" and rest:
        described = read_json(Path(rest)) if rest.endswith(".json") else built_in(rest)
    else:
        raise ConfigError(f"unknown architecture {architecture!r}; known are {FORMS}")
    preprocess = described.get("preprocess_cfg", (config or {}).get("preprocess_cfg"))
    look |= {name: look[name] or _channels(preprocess, name) for name in ("mean", "std")}
    return _open_clip(architecture, described, quick_gelu, tokenizer, look)


def asks_activation(architecture: str) -> bool:
    """Whether the name leaves open if the weights were trained with GELU or with QuickGELU.

    Raises:
        ConfigError: There is no such architecture.
    """
    family, _, rest = architecture.partition("/")
    if family != "open_clip" or rest.endswith(".json"):
        return False
    return undecided_activation(rest, built_in(rest))


def candidates(tensors: State) -> Iterator[Encoder]:
    """The architectures that a state dict may hold, from what the shapes of its stem say."""
    stems = {
        tuple(tensor.shape)
        for name, tensor in tensors.items()
        if tensor.ndim == 4 and tensor.shape[1] == 3 and name.endswith(_STEMS)
    }
    widths = {64, *(stem[0] for stem in stems if 0 < stem[0] < 10_000)}
    for width in sorted(widths):
        yield from map(create, simclr_architectures(width))
    models = (name for name in list_models() if not name.endswith("-quickgelu"))  # same shapes
    for name in (*_USUAL_VITS, *(f"open_clip/{model}" for model in models)):
        if _stem(name) in stems:
            try:
                yield create(name)
            except SslPurifyError:  # towers that are not described here
                continue


_STEMS = ("conv1.weight", "conv_proj.weight", "patch_embed.proj.weight")
_WIDTHS = {"tiny": 192, "small": 384, "base": 768, "large": 1024, "b": 768, "l": 1024, "h": 1280}


def _stem(name: str) -> tuple[int, ...]:
    """Shape of an architecture's first convolution, without building the network."""
    family, _, rest = name.partition("/")
    if family != "open_clip":
        size, patch = re.findall(r"vit_([a-z]+)_(?:patch)?(\d+)", rest)[0]
        return (_WIDTHS[size], 3, int(patch), int(patch))
    vision = (get_model_config(rest) or {}).get("vision_cfg", {})
    width, patch = vision.get("width", 768), vision.get("patch_size", 16)
    if isinstance(vision.get("layers", 12), list):
        return (width // 2, 3, 3, 3)
    if "timm_model_name" in vision:
        size = re.match(r"vit_([a-z]+)_patch(\d+)", vision["timm_model_name"])
        known = size is not None and size[1] in _WIDTHS
        return (_WIDTHS[size[1]], 3, int(size[2]), int(size[2])) if size and known else ()
    return (width, 3, patch, patch)


def _open_clip(
    name: str,
    data: Mapping[str, Any],
    quick_gelu: bool | None,
    tokenizer: Path | None,
    look: Mapping[str, Any],
) -> Encoder:
    """By the model's part of a configuration, which is the whole of some."""
    described = data.get("model_cfg", data)
    if not isinstance(described, dict):
        raise ConfigError(f"{name}: model_cfg is no mapping")
    tokenize = None
    if tokenizer is not None:
        text = described.get("text_cfg")
        length = text.get("context_length", 77) if isinstance(text, dict) else 77
        tokenize = hf_tokenizer(tokenizer, length)
    return open_clip_encoder(name, described, quick_gelu=quick_gelu, tokenize=tokenize, **look)


def _channels(preprocess: Any, name: str) -> Channels | None:
    """A value for each channel from an open_clip configuration; None where it has none."""
    values = preprocess.get(name) if isinstance(preprocess, dict) else None
    if values is None:
        return None
    numbers = values if isinstance(values, list) else []
    plain = all(isinstance(value, (int, float)) and 0 <= value < 256 for value in numbers)
    if len(numbers) != 3 or not plain or (name == "std" and 0 in numbers):
        raise ConfigError(
            f"open_clip's configuration: {name} of preprocess_cfg is not three positive numbers, "
            "one a channel; correct it, or give --image-mean and --image-std"
        )
    return (float(numbers[0]), float(numbers[1]), float(numbers[2]))
