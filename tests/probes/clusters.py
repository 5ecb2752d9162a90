"""Embeddings with classes in them."""

import torch
from torch import Tensor


def clusters(count: int, seed: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """``count`` embeddings of 16 dimensions in 5 overlapping classes; the classes never change."""
    centres = torch.randn(5, 16, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (count,), generator=generator)
    noise = torch.randn(count, 16, generator=generator)
    return centres[labels] + spread * noise, labels
