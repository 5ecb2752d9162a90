"""Training encoders from scratch: what attacks start from, and what purification is tried on."""

from sslpurify.pretrain.clip import ClipSettings, train_clip
from sslpurify.pretrain.simclr import SimclrSettings, train_simclr

__all__ = ["ClipSettings", "SimclrSettings", "train_clip", "train_simclr"]
