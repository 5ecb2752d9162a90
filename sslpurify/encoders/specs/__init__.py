"""What may be permuted in each family of architectures, read off its modules."""

from sslpurify.encoders.specs.depth import sections_of
from sslpurify.encoders.specs.hf_vision import hf_vision_spec
from sslpurify.encoders.specs.modified_resnet import modified_resnet_spec
from sslpurify.encoders.specs.open_clip_vit import open_clip_vit_spec
from sslpurify.encoders.specs.resnet import resnet_spec
from sslpurify.encoders.specs.timm_vit import timm_vit_spec
from sslpurify.encoders.specs.torchvision_vit import torchvision_vit_spec

__all__ = [
    "hf_vision_spec",
    "modified_resnet_spec",
    "open_clip_vit_spec",
    "resnet_spec",
    "sections_of",
    "timm_vit_spec",
    "torchvision_vit_spec",
]
