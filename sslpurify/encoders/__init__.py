"""The only place where architectures exist: how to build each, and what may be permuted in it."""

from sslpurify.encoders.catalogue import asks_activation, candidates, create
from sslpurify.encoders.cleanset import CleanSet
from sslpurify.encoders.encoder import Channels, Encoder, Family, Network, Output
from sslpurify.encoders.features import Transform, embed
from sslpurify.encoders.guides import (
    Captions,
    Guide,
    Prompts,
    by_captions,
    by_views,
)
from sslpurify.encoders.head import HeadLayout, default_head
from sslpurify.encoders.layout import Layout, extract, extract_text, restore
from sslpurify.encoders.locating import Candidate, guess, locate
from sslpurify.encoders.simclr import simclr_architectures
from sslpurify.encoders.text import TextSide, TextTower, embed_captions

__all__ = [
    "Candidate",
    "Captions",
    "Channels",
    "CleanSet",
    "Encoder",
    "Family",
    "Guide",
    "HeadLayout",
    "Layout",
    "Network",
    "Output",
    "Prompts",
    "TextSide",
    "TextTower",
    "Transform",
    "asks_activation",
    "by_captions",
    "by_views",
    "candidates",
    "create",
    "default_head",
    "embed",
    "embed_captions",
    "extract",
    "extract_text",
    "guess",
    "locate",
    "restore",
    "simclr_architectures",
]
