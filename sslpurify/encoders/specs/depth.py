"""Architectures by depth, from the image to the embedding."""

from torch import nn
from torchvision.models.resnet import ResNet

from sslpurify.encoders.specs.hf_vision import ROOTS, describe_hf_vision
from sslpurify.encoders.specs.modified_resnet import modified_resnet_sections
from sslpurify.encoders.specs.naming import is_a
from sslpurify.encoders.specs.open_clip_vit import describe_open_clip_vit
from sslpurify.encoders.specs.resnet import resnet_sections
from sslpurify.encoders.specs.timm_vit import describe_timm_vit
from sslpurify.encoders.specs.torchvision_vit import describe_torchvision_vit
from sslpurify.encoders.specs.transformer import Sections, Transformer, sections
from sslpurify.errors import ConfigError


def sections_of(module: nn.Module) -> Sections:
    """A module taken apart by depth: four sections, or fewer if a transformer has fewer blocks.

    An entry is the name of a sub-module, or of a parameter that lies in none of those (a class
    token, a positional embedding, a projection). A tensor belongs to a section if its name is an
    entry, or begins with an entry and a dot; every tensor belongs to exactly one.

    Args:
        module: Of a family of this room, whose names the entries are relative to; only its layout
            is read, may lie on the meta device.

    Returns:
        ResNets: the stem with the first stage, then each stage, the last with the pool or the
        classifier. Transformers: about equal parts of the blocks; the embedding of the patches is
        with the first, the last norm, pool and projection are with the last.

    Raises:
        ConfigError: If the module is of no family, or built in a way that is not described.
    """
    if isinstance(module, ResNet):
        return resnet_sections(module)
    if is_a(module, "open_clip.ModifiedResNet"):
        return modified_resnet_sections(module)
    return sections(_described(module))


def _described(module: nn.Module) -> Transformer:
    for kind, describe in _TRANSFORMERS.items():
        if is_a(module, kind):
            return describe(module)
    raise ConfigError(f"no family of architectures has a {type(module).__name__}")


_TRANSFORMERS = {
    "open_clip.VisionTransformer": describe_open_clip_vit,
    "timm.VisionTransformer": describe_timm_vit,
    "torchvision.VisionTransformer": describe_torchvision_vit,
    **dict.fromkeys(ROOTS, describe_hf_vision),
}
