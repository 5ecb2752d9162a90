"""Label-free losses behind one call shape: two batches of embeddings in, one scalar out."""

from sslpurify.losses.contrastive import Loss, info_nce, nt_xent, siglip, soft_targets

__all__ = ["Loss", "info_nce", "nt_xent", "siglip", "soft_targets"]
