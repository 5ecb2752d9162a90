"""Image-text models of all families at the smallest size, put together by their own libraries."""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file
from timm.models import VisionTransformer, register_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTModel,
)

SIZE = 32
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
RN = {
    "embed_dim": 12,
    "quick_gelu": False,
    "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": TEXT,
}
VIT = {
    "embed_dim": 12,
    "quick_gelu": False,
    "vision_cfg": {
        "image_size": SIZE,
        "layers": 2,
        "width": 16,
        "head_width": 8,
        "patch_size": 8,
    },
    "text_cfg": TEXT,
}
CUSTOM = VIT | {"custom_text": True}
SIGLIP = {
    "embed_dim": 16,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": SIZE,
        "timm_model_name": "vit_pico_patch8_32",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": TEXT
    | {"vocab_size": 50, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "rn": RN,
    "vit": VIT,
    "custom": CUSTOM,
    "siglip": SIGLIP,
}


@register_model
def vit_pico_patch8_32(num_classes: int = 0, global_pool: str = "map", **_: Any) -> nn.Module:
    """A trunk smaller than any that timm has."""
    return VisionTransformer(
        img_size=SIZE,
        patch_size=8,
        embed_dim=16,
        depth=2,
        num_heads=2,
        class_token=False,
        num_classes=num_classes,
        global_pool=global_pool,
    )


def model(kind: str, seed: int = 0) -> nn.Module:
    """open_clip's own model, in evaluation mode, with weights that make every tensor count."""
    config = deepcopy(dict(CONFIGS[kind]))
    custom = config.pop("custom_text", False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made = (CustomTextCLIP if custom else CLIP)(**config)
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.5 * torch.randn_like(parameter)
    return made.eval()


def state(kind: str, seed: int = 0) -> dict[str, Tensor]:
    """What people save of it."""
    return {name: tensor.clone() for name, tensor in model(kind, seed).state_dict().items()}


def write_config(path: Path, kind: str) -> Path:
    """A model configuration as open_clip has them."""
    path.write_text(json.dumps(CONFIGS[kind]))
    return path


def write(folder: Path, kind: str, seed: int = 0, *, tower: bool = False) -> tuple[str, Path]:
    """The ``--arch`` and the checkpoint of a model, or of its image tower alone."""
    config = write_config(folder / f"pico-{kind}.json", kind)
    kept = {
        name: tensor for name, tensor in state(kind, seed).items() if not tower or "visual." in name
    }
    path = folder / f"{kind}{'-tower' if tower else ''}.safetensors"
    save_file(kept, path)
    return f"open_clip/{config}", path


def images(count: int, seed: int = 0, size: int = SIZE) -> Tensor:
    """Colours under noise, in [0, 1]."""
    draws = torch.Generator().manual_seed(seed)
    colour = torch.rand(count, 3, 1, 1, generator=draws)
    return (colour + torch.rand(count, 3, size, size, generator=draws)) / 2


TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
HF_VISION = TOWER | {"num_hidden_layers": 2, "image_size": SIZE, "patch_size": 8}
HF_TEXT = TOWER | {"num_hidden_layers": 1, "vocab_size": 50, "max_position_embeddings": 16}
PAD, UNKNOWN = "[PAD]", "[UNK]"
WORDS = [PAD, UNKNOWN, *"a photo of . blue green red this is some thing".split()]  # noqa: SIM905


def hf_model(kind: str, seed: int = 0) -> PreTrainedModel:
    """transformers' own model, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made = _HF[kind]()
        for parameter in made.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return made.eval()


_HF: Mapping[str, Callable[[], PreTrainedModel]] = {
    "clip": lambda: CLIPModel(
        CLIPConfig(
            text_config=HF_TEXT | {"eos_token_id": 2}, vision_config=HF_VISION, projection_dim=12
        )
    ),
    "siglip": lambda: SiglipModel(SiglipConfig(text_config=HF_TEXT, vision_config=HF_VISION)),
    "vit": lambda: ViTModel(ViTConfig(**HF_VISION)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**HF_VISION)),
}
HF_KINDS = list(_HF)


def write_hf(folder: Path, kind: str, seed: int = 0, **options: Any) -> Path:
    """A folder as `save_pretrained` leaves it, with a tokenizer of a few words."""
    hf_model(kind, seed).save_pretrained(folder, **options)
    words = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token=UNKNOWN))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PAD, unk_token=UNKNOWN
    ).save_pretrained(folder)
    return folder
