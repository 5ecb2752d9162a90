"""Contrastive losses, taken from the libraries that users train with."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from lightly.loss import NTXentLoss
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]
"""(embeddings of one side (n, d), embeddings of the other (n, d)) -> scalar."""


def nt_xent(temperature: float = 0.5) -> Loss:
    """NT-Xent (Chen et al. 2020, SimCLR, equation 1), by lightly.

    Args:
        temperature: Divides the cosine similarities; above 0.

    Returns:
        A loss over two batches of at least 2 projections, computed in float32. A batch of one has
        no negatives and a loss of exactly 0, whatever the network does: it raises ValueError.

    Raises:
        ValueError: The temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"the temperature of NT-Xent must be above 0, not {temperature}")
    return _in_float32(NTXentLoss(temperature=temperature), "NT-Xent")


def info_nce(
    images: Float[Tensor, "n d"], captions: Float[Tensor, "n d"], scale: Tensor | float
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of images and their captions (Radford et al. 2021), by open_clip.

    Args:
        images: Embeddings of at least 2 images, of any length.
        captions: Of their captions, in the same order.
        scale: Multiplies the cosine similarities: exp of CLIP's ``logit_scale``.

    Raises:
        ValueError: There is only one pair, which has no negatives.
    """
    criterion = ClipLoss()
    return _in_float32(lambda a, b: criterion(_unit(a), _unit(b), scale), "InfoNCE")(
        images, captions
    )


def siglip(
    images: Float[Tensor, "n d"],
    captions: Float[Tensor, "n d"],
    scale: Tensor | float,
    bias: Tensor | float,
) -> Float[Tensor, ""]:
    """The pairwise sigmoid loss of SigLIP (Zhai et al. 2023, algorithm 1), by open_clip.

    Args:
        images: Embeddings of at least 2 images, of any length.
        captions: Of their captions, in the same order.
        scale: Multiplies the cosine similarities.
        bias: Added to the scaled similarities.

    Raises:
        ValueError: There is only one pair, which has no negatives.
    """
    criterion = SigLipLoss()
    return _in_float32(lambda a, b: criterion(_unit(a), _unit(b), scale, bias), "SigLIP's loss")(
        images, captions
    )


def _in_float32(criterion: Callable[[Tensor, Tensor], Tensor], name: str) -> Loss:
    def loss(first: Tensor, second: Tensor) -> Tensor:
        if len(first) < 2:
            raise ValueError(f"{name} needs at least 2 images in a batch, not {len(first)}")
        with torch.autocast(first.device.type, enabled=False):
            return criterion(first.float(), second.float())

    return loss


def _unit(embeddings: Tensor) -> Tensor:
    return F.normalize(embeddings, dim=1)
