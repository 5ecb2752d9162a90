"""Embeddings of an image set: computed once per (weights, images) and shared by all who ask."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from sslpurify.compute import CPU
from sslpurify.data import ImageSet
from sslpurify.encoders.encoder import Network
from sslpurify.types import Listener, Step, silent

Transform = Callable[[Tensor], Tensor]
"""A function on images (n, 3, h, w) in [0, 1], such as a trigger."""


def embed(
    network: Network,
    images: ImageSet,
    *,
    batch_size: int = 512,
    transform: Transform | None = None,
    device: torch.device = CPU,
    listener: Listener = silent,
    stage: str = "embedding",
) -> Float[Tensor, "n d"]:
    """The embeddings of all images, in their order, float32 on the CPU.

    The network must be in evaluation mode on ``device``; ``transform`` is applied to the images
    before they are normalized.
    """
    steps = -(-len(images) // batch_size)
    parts: list[Tensor] = []
    with torch.inference_mode():
        for number, batch in enumerate(image_batches(images, batch_size), 1):
            shown = batch if transform is None else transform(batch)
            parts.append(network(shown.to(device)).embedding.float().cpu())
            listener(Step(stage, number, steps, len(batch)))
    return torch.cat(parts)


def image_batches(images: ImageSet, batch_size: int) -> Iterator[Tensor]:
    """All images in their order, in batches of at most ``batch_size``, in [0, 1]."""
    for indices in torch.arange(len(images)).split(batch_size):
        yield images.batch(indices)
