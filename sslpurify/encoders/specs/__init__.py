"""What may be permuted in each family of architectures, read off its modules."""

from sslpurify.encoders.specs.depth import sections_of
from sslpurify.encoders.specs.modified_resnet import modified_resnet_spec
from sslpurify.encoders.specs.open_clip_vit import open_clip_vit_spec
from sslpurify.encoders.specs.resnet import resnet_spec

__all__ = [
    "modified_resnet_spec",
    "open_clip_vit_spec",
    "resnet_spec",
    "sections_of",
]
