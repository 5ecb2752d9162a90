"""Label-free losses behind one call shape: two batches of projections in, one scalar out."""

from sslpurify.losses.contrastive import Loss, nt_xent

__all__ = ["Loss", "nt_xent"]
