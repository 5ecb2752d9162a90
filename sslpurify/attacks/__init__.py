"""Attacks, to make victims that purification is tested on."""

from sslpurify.attacks.badclip import BadClipSettings, optimize_patch
from sslpurify.attacks.badencoder import BadEncoderSettings
from sslpurify.attacks.effects import Add, Blend, Chain, Effect, Warp
from sslpurify.attacks.image_poisoning import (
    CtrlSettings,
    PatchPoisoningSettings,
    first_of_class,
    members,
    poison_images,
    share_of_class,
)
from sslpurify.attacks.pair_poisoning import PairPoisoningSettings, poison_pairs
from sslpurify.attacks.patterns import BUILT_IN
from sslpurify.attacks.triggers import (
    Trigger,
    read_reference,
    read_trigger,
    save_picture,
    trigger_name,
)

__all__ = [
    "BUILT_IN",
    "Add",
    "BadClipSettings",
    "BadEncoderSettings",
    "Blend",
    "Chain",
    "CtrlSettings",
    "Effect",
    "PairPoisoningSettings",
    "PatchPoisoningSettings",
    "Trigger",
    "Warp",
    "first_of_class",
    "members",
    "optimize_patch",
    "poison_images",
    "poison_pairs",
    "read_reference",
    "read_trigger",
    "save_picture",
    "share_of_class",
    "trigger_name",
]
