"""One pico member of every family, with what the laws need to know about it."""

from collections.abc import Callable
from dataclasses import dataclass

from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer as OpenClipViT
from torch import nn

from sslpurify.encoders.specs import modified_resnet_spec, open_clip_vit_spec
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
}
