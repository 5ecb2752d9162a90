"""The only place where architectures exist: how to build each, and what may be permuted in it."""

from sslpurify.encoders.contrast import Contrast
from sslpurify.encoders.encoder import Channels, Encoder, Network, Output
from sslpurify.encoders.features import Transform, embed, image_batches
from sslpurify.encoders.layout import (
    Candidate,
    HeadLayout,
    Layout,
    extract,
    guess,
    locate,
    restore,
)
from sslpurify.encoders.simclr import architectures, backbone_shapes, create, default_head

__all__ = [
    "Candidate",
    "Channels",
    "Contrast",
    "Encoder",
    "HeadLayout",
    "Layout",
    "Network",
    "Output",
    "Transform",
    "architectures",
    "backbone_shapes",
    "create",
    "default_head",
    "embed",
    "extract",
    "guess",
    "image_batches",
    "locate",
    "restore",
]
