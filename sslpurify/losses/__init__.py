"""Label-free losses, taken from the libraries that users train with."""

from sslpurify.losses.contrastive import Loss, info_nce, nt_xent, siglip

__all__ = ["Loss", "info_nce", "nt_xent", "siglip"]
