"""The scan at the start of training: which images are drawn, and which of them can be read."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from sslpurify.data.captions import Pair
from sslpurify.data.folder import Unreadable, list_images, printable
from sslpurify.data.images import MEMORY_LIMIT, ImageSet
from sslpurify.data.loading import common_size, load, only, require_enough
from sslpurify.errors import ConfigError, DataError
from sslpurify.rng import generator
from sslpurify.types import Listener, silent

Captions = tuple[tuple[str, ...], ...]
"""The captions of every image, in the order of the images."""


@runtime_checkable
class Pool(Protocol):
    """Images with their captions, numbered in the order in which they are stored."""

    def __len__(self) -> int:
        """How many there are, the unreadable ones included."""
        ...

    def pick(self, indices: Sequence[int]) -> list[Pair | Unreadable]:
        """Those at ``indices``, which ascend."""
        ...


@dataclass(frozen=True)
class Listed:
    """A pool of which everything is known beforehand."""

    items: Sequence[Pair | Unreadable]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.items)

    def pick(self, indices: Sequence[int]) -> list[Pair | Unreadable]:
        """Those at ``indices``."""
        return [self.items[index] for index in indices]


def read_images(
    folder: Path,
    size: int | None,
    *,
    limit: int | None = None,
    seed: int = 0,
    max_bad_fraction: float = 0.01,
    memory_limit: int = MEMORY_LIMIT,
    exclude: Collection[Path] = (),
    listener: Listener = silent,
) -> ImageSet:
    """Reads the images of a folder, at any depth, sorted by their path.

    Every file is decoded once at the start, so what cannot be read is known before any work:
    it is listed in the result with its reason.

    Args:
        folder: The folder. See `list_images` for what counts as an image in it.
        size: Height and width that all images are brought to (see `decode_image`), or None for
            the images' own, when they all have the same.
        limit: Draw so many images at random, a function of the seed alone; a smaller limit gives a
            part of a larger one's. Hardly more than these are decoded.
        seed: Of that draw.
        max_bad_fraction: Largest share of unreadable files, from 0 to 1, of those looked at.
        memory_limit: Most bytes of pixels kept in memory; a larger set is decoded batch by batch.
        exclude: Folders inside ``folder`` that are left out.
        listener: Told about every chunk of files.

    Raises:
        ConfigError: A limit or size makes no sense.
        DataError: No such folder, no images in it, fewer than ``limit``, too many unreadable ones,
            or different sizes where none was asked for.
    """
    listing = list_images(folder, exclude=exclude)
    pool = Listed([*(Pair(file, ()) for file in listing.files), *listing.unreadable])
    if not pool.items:
        raise DataError(
            f"{printable(folder)} has no images ({listing.others} files of other kinds)"
        )
    images, _ = scan(folder, pool, size, limit, seed, max_bad_fraction, memory_limit, listener)
    return replace(images, others=listing.others)


def scan(
    path: Path,
    pool: Pool,
    size: int | None,
    limit: int | None,
    seed: int,
    max_bad_fraction: float,
    memory_limit: int,
    listener: Listener,
) -> tuple[ImageSet, Captions]:
    """Draws from a pool and decodes what was drawn once; the result is in the pool's order.

    Args:
        path: Where the pool is, for people.
        pool: What is drawn from.
        size: As the other arguments: see `read_images`.
        limit: How many.
        seed: Of the draw.
        max_bad_fraction: Largest share that may be unreadable.
        memory_limit: Most bytes of pixels kept in memory.
        listener: Told about every chunk of images.

    Raises:
        ConfigError: A limit or size makes no sense.
        DataError: As `read_images`.
    """
    order = _order(path, len(pool), limit, seed, max_bad_fraction)
    numbers = sorted(order)
    picked = dict(zip(numbers, pool.pick(numbers), strict=True))
    pairs = {number: item for number, item in picked.items() if isinstance(item, Pair)}
    bad = tuple(item for item in picked.values() if isinstance(item, Unreadable))
    require_enough(path, len(pairs), bad, max_bad_fraction)
    sources = [pair.source for pair in pairs.values()]
    size = common_size(sources) if size is None else size
    loaded = load(sources, size, memory_limit, listener)
    bad += loaded.unreadable
    require_enough(path, len(loaded.kept), bad, max_bad_fraction)
    readable = list(pairs)
    rows = {readable[place]: row for row, place in enumerate(loaded.kept)}
    drawn = sorted([number for number in order if number in rows][:limit])
    if limit is not None and len(drawn) < limit:
        raise DataError(f"{printable(path)}: limit is {limit}, but only {len(drawn)} can be read")
    if len(drawn) < len(rows):  # more were read than asked for, in case some could not be
        loaded = only(loaded, [rows[number] for number in drawn])
    images = ImageSet(size, loaded.sources, loaded.pixels, bad)
    return images, tuple(pairs[number].captions for number in drawn)


def _order(
    path: Path, available: int, limit: int | None, seed: int, max_bad_fraction: float
) -> list[int]:
    """Numbers of the images to look at, in the order in which they are taken.

    They are as many more than the limit as may turn out to be unreadable.
    """
    if limit is None:
        return list(range(available))
    if limit < 1:
        raise ConfigError(f"limit of {limit} images: must be at least 1")
    if limit > available:
        raise DataError(
            f"{printable(path)}: limit is {limit}, but there are only {available} images"
        )
    spare = max_bad_fraction < 1
    needed = min(available, math.ceil(limit / (1 - max_bad_fraction))) if spare else available
    return torch.randperm(available, generator=generator(seed, "limit"))[:needed].tolist()
