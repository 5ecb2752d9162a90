"""One pico member of every family, with what the laws need to know about it."""

from collections.abc import Callable
from dataclasses import dataclass

import transformers
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer as OpenClipViT
from timm.layers import SwiGLU, SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn
from torchvision.models import VisionTransformer as TorchvisionViT

from sslpurify.encoders.specs import (
    hf_vision_spec,
    modified_resnet_spec,
    open_clip_vit_spec,
    timm_vit_spec,
    torchvision_vit_spec,
)
from sslpurify.symmetry.spec import PermutationSpec

Spec = Callable[[nn.Module, str], PermutationSpec]


@dataclass(frozen=True)
class Family:
    """A network, its specification, the kinds of its groups, and the size of its images."""

    make: Callable[[], nn.Module]
    spec: Spec
    kinds: str
    size: int = 16


def modified_resnet() -> nn.Module:
    """A block without a downsample branch among them; 2x2 positions reach the attention pool."""
    return ModifiedResNet([1, 2, 1, 1], output_dim=6, heads=4, image_size=64, width=4)


def open_clip(**options: object) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        return OpenClipViT(16, 8, 12, 2, 3, 1.5, output_dim=6, **options)

    return make


def without_projection() -> nn.Module:
    network = open_clip()()
    network.proj = None
    return network


def tokens_first() -> nn.Module:
    """Older checkpoints of open_clip run their blocks on (length, n, width)."""
    network = open_clip()()
    network.transformer.batch_first = False
    for block in network.transformer.resblocks:
        block.attn.batch_first = False
    return network


def timm(**options: object) -> Callable[[], nn.Module]:
    small = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3}
    small |= {"mlp_ratio": 1.5, "num_classes": 0}
    return lambda: TimmViT(**(small | options))


def torchvision(classes: bool) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        network = TorchvisionViT(16, 8, 2, 3, 12, 18, num_classes=6)
        if not classes:
            network.heads = nn.Identity()
        return network

    return make


class Embedding(nn.Module):
    """A Hugging Face module whose output is a tensor, the embedding, rather than a record."""

    def __init__(self, module: nn.Module, field: str) -> None:
        super().__init__()
        self.module, self.field = module, field

    def forward(self, images: Tensor) -> Tensor:
        return getattr(self.module(images), self.field)


def hf_spec(network: nn.Module, prefix: str) -> PermutationSpec:
    return hf_vision_spec(network.module, f"{prefix}module.")


def hf(kind: str, field: str = "last_hidden_state", **options: object) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        settings = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
        settings |= {"image_size": 16, "patch_size": 8}
        if kind != "Dinov2Model":
            settings["intermediate_size"] = 18
        if field == "image_embeds":
            settings["projection_dim"] = 6
        cls = getattr(transformers, kind)
        return Embedding(cls(cls.config_class(**(settings | options))), field)

    return make


CUSTOM = ("qk_norm", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
ALL = "inner residual heads qk vo"
FIXED_STREAM = "inner heads qk vo"

FAMILIES = {
    "open_clip-resnet": Family(modified_resnet, modified_resnet_spec, ALL, 64),
    "open_clip-vit": Family(open_clip(), open_clip_vit_spec, ALL),
    "open_clip-vit-tokens-first": Family(tokens_first, open_clip_vit_spec, ALL),
    "open_clip-vit-layer-scale": Family(
        open_clip(ls_init_value=0.1, pool_type="avg", final_ln_after_pool=True, no_ln_pre=True),
        open_clip_vit_spec,
        ALL,
    ),
    "open_clip-vit-custom": Family(
        open_clip(**dict.fromkeys(CUSTOM, True)), open_clip_vit_spec, ALL
    ),
    "open_clip-vit-no-proj": Family(without_projection, open_clip_vit_spec, FIXED_STREAM),
    "timm": Family(timm(), timm_vit_spec, FIXED_STREAM),
    "timm-classifier": Family(
        timm(num_classes=6, global_pool="avg", pre_norm=True), timm_vit_spec, ALL
    ),
    "timm-qk-norm-registers": Family(
        timm(
            num_classes=6,
            qk_norm=True,
            init_values=0.1,
            reg_tokens=2,
            no_embed_class=True,
            scale_attn_norm=True,
            scale_mlp_norm=True,
            mlp_layer=SwiGLU,
        ),
        timm_vit_spec,
        ALL,
    ),
    "timm-siglip": Family(
        timm(class_token=False, global_pool="map", mlp_layer=SwiGLUPacked, mlp_ratio=2),
        timm_vit_spec,
        ALL,
    ),
    "timm-siglip-classifier": Family(
        timm(class_token=False, global_pool="map", num_classes=6), timm_vit_spec, ALL
    ),
    "torchvision": Family(torchvision(classes=False), torchvision_vit_spec, FIXED_STREAM),
    "torchvision-classifier": Family(torchvision(classes=True), torchvision_vit_spec, ALL),
    "hf-clip": Family(hf("CLIPVisionModelWithProjection", "image_embeds"), hf_spec, ALL),
    "hf-clip-no-projection": Family(hf("CLIPVisionModel", "pooler_output"), hf_spec, FIXED_STREAM),
    "hf-siglip": Family(hf("SiglipVisionModel", "pooler_output"), hf_spec, ALL),
    "hf-siglip-no-head": Family(
        hf("SiglipVisionModel", vision_use_head=False), hf_spec, FIXED_STREAM
    ),
    "hf-vit": Family(hf("ViTModel", "pooler_output"), hf_spec, FIXED_STREAM),
    "hf-dinov2": Family(hf("Dinov2Model"), hf_spec, FIXED_STREAM),
    "hf-dinov2-swiglu": Family(hf("Dinov2Model", use_swiglu_ffn=True), hf_spec, FIXED_STREAM),
}
