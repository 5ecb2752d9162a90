"""From a recipe's nouns to weights, images and an encoder, and the decisions this takes."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from sslpurify.checkpoint import Checkpoint, read
from sslpurify.data import ImageSet, read_images, subset
from sslpurify.encoders import (
    Encoder,
    Layout,
    architectures,
    backbone_shapes,
    create,
    extract,
    locate,
)
from sslpurify.errors import CheckpointError, DataError
from sslpurify.recipe import EncoderChoice
from sslpurify.rng import generator
from sslpurify.types import Listener, State

C = TypeVar("C", bound=EncoderChoice)

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Weights:
    """A checkpoint, where its encoder lies in it, and that encoder's state."""

    checkpoint: Checkpoint
    layout: Layout
    state: dict[str, Tensor]


def read_weights(path: Path, architecture: str) -> Weights:
    """The encoder in a checkpoint.

    Raises:
        CheckpointError: The file is damaged, or holds another architecture.
        ConfigError: There is no such architecture.
        UnsafeInputError: The file would run code.
    """
    expected = backbone_shapes(architecture)
    checkpoint = read(path)
    try:
        layout = locate(checkpoint.tensors, architecture, expected, known(checkpoint.tensors))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    for prefix in layout.copies:
        log.warning("%s: a further encoder under %r stays as it is", path, prefix)
    for place in checkpoint.siblings:
        log.warning("%s: a further copy of the weights, %r, stays as it is", path, place)
    return Weights(checkpoint, layout, extract(checkpoint, layout))


def known(tensors: State) -> Mapping[str, Mapping[str, tuple[int, ...]]]:
    """Every architecture that a state dict could hold, with its backbone's shapes.

    Of the architectures of other than full width those as wide as a stem in the file.
    """
    stems = {
        tensor.shape[0]
        for name, tensor in tensors.items()
        if name.endswith("conv1.weight") and tensor.shape[1:2] == (3,)
    }
    widths = {64, *(width for width in stems if 0 < width < 10_000)}
    return {
        name: backbone_shapes(name) for width in sorted(widths) for name in architectures(width)
    }


def wanted_size(choice: EncoderChoice) -> int | None:
    """The images' size as asked for, or as the small stem has it; None: the images' own."""
    if choice.image_size is None and choice.arch.endswith("-cifar"):
        return create(choice.arch).image_size
    return choice.image_size


def encoder_of(choice: EncoderChoice, size: int, weights: Weights) -> Encoder:
    """The encoder that a recipe means, for images of this size, with the head of the weights."""
    return create(
        choice.arch,
        image_size=size,
        mean=choice.image_mean,
        std=choice.image_std,
        head=weights.layout.head,
    )


def tell_decisions(choice: EncoderChoice, encoder: Encoder) -> None:
    """Log what the recipe left open and was decided."""
    if choice.image_size is None:
        size = encoder.image_size
        log.info("images enter at %d × %d pixels (--force-image-size)", size, size)
    if choice.image_mean is None:
        mean, std = (", ".join(f"{v:g}" for v in values) for values in (encoder.mean, encoder.std))
        log.info("normalized with mean %s, std %s (--image-mean, --image-std)", mean, std)


def resolved(choice: C, encoder: Encoder) -> C:
    """The recipe with the decisions that the encoder embodies written in."""
    decided = {
        "image_size": encoder.image_size,
        "image_mean": encoder.mean,
        "image_std": encoder.std,
    }
    return choice.model_copy(update=decided)


def completed(encoder: Encoder, weights: Weights) -> dict[str, Tensor]:
    """The weights' state, and where their file lacks a head, one that no embedding depends on."""
    return {**encoder.fresh(0).state_dict(), **weights.state}


def draw_images(
    folder: Path, size: int | None, limit: int | None, seed: int, listener: Listener
) -> ImageSet:
    """The images of a folder, or ``limit`` of them drawn at random.

    Raises:
        DataError: As `read_images`; or the folder holds fewer than ``limit``.
    """
    images = read_images(folder, size, listener=listener)
    for file in images.unreadable:
        log.warning("left out: %s", file)
    if limit is None:
        return images
    if limit > len(images):
        raise DataError(f"{folder}: limit is {limit}, but there are only {len(images)} images")
    chosen = torch.randperm(len(images), generator=generator(seed, "limit"))[:limit]
    return subset(images, chosen.sort().values)
