"""Many files at once: decoded by a few threads, every failure kept."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from sslpurify.data.decode import ImageError, decode_image, image_size
from sslpurify.data.folder import Unreadable, printable
from sslpurify.data.sources import Source
from sslpurify.errors import ConfigError, DataError
from sslpurify.types import Listener, Step

_THREADS = min(8, os.cpu_count() or 1)  # Pillow releases the GIL while it decodes
_CHUNK = 64


@dataclass(frozen=True)
class Loaded:
    """What became of a list of images: the readable ones in order, their pixels, and the rest.

    ``kept`` says where in the list the readable ones stood.
    """

    kept: tuple[int, ...]
    sources: tuple[Source, ...]
    pixels: UInt8[Tensor, "n 3 s s"] | None
    unreadable: tuple[Unreadable, ...]


def decode_all(sources: Sequence[Source], size: int) -> UInt8[Tensor, "n 3 s s"]:
    """Decodes all images to one tensor.

    Raises:
        ImageError: One of them cannot be read.
    """
    pixels = torch.empty(len(sources), 3, size, size, dtype=torch.uint8)
    with ThreadPoolExecutor(_THREADS) as pool:
        decoded = pool.map(decode_image, sources, repeat(size))
        for row, image in zip(pixels, decoded, strict=True):
            row.copy_(image)
    return pixels


def load(sources: Sequence[Source], size: int, memory_limit: int, listener: Listener) -> Loaded:
    """Decodes every image once; keeps the pixels when they fit in ``memory_limit`` bytes."""
    if size < 1:
        raise ConfigError(f"image size {size}: must be at least 1 pixel")
    fits = len(sources) * 3 * size * size <= memory_limit
    pixels = torch.empty(len(sources) if fits else 0, 3, size, size, dtype=torch.uint8)
    rows = pixels.numpy()  # torch would start its own threads in each of ours

    def decode_chunk(start: int) -> list[tuple[int, str]]:
        failures: list[tuple[int, str]] = []
        for index in range(start, min(start + _CHUNK, len(sources))):
            try:
                image = decode_image(sources[index], size)
            except ImageError as error:
                failures.append((index, error.reason))
            else:
                if fits:
                    rows[index] = image.numpy()
        return failures

    reasons: dict[int, str] = {}
    starts = range(0, len(sources), _CHUNK)
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for step, failures in enumerate(pool.map(decode_chunk, starts), start=1):
                reasons |= failures
                done = min(_CHUNK, len(sources) - starts[step - 1])
                listener(Step("reading images", step, len(starts), done))
        except BaseException:  # Ctrl-C must not wait for the files still queued
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    kept = [index for index in range(len(sources)) if index not in reasons]
    return Loaded(
        kept=tuple(kept),
        sources=tuple(sources[index] for index in kept),
        pixels=_moved_up(pixels, kept) if fits else None,
        unreadable=tuple(Unreadable(sources[index], reasons[index]) for index in sorted(reasons)),
    )


def common_size(sources: Sequence[Source]) -> int:
    """Height and width that all readable images have.

    Raises:
        DataError: They are not square or not all alike, or none is readable.
    """
    examples: dict[tuple[int, int], Source] = {}
    counts: Counter[tuple[int, int]] = Counter()
    first: ImageError | None = None
    for source in sources:
        try:
            found = image_size(source)
        except ImageError as error:  # `load` lists it
            first = first or error
            continue
        examples.setdefault(found, source)
        counts[found] += 1
    if not counts:
        raise DataError(f"none of {len(sources)} images can be read. The first: {first}")
    width, height = next(iter(counts))
    if len(counts) > 1 or width != height:
        sizes = ", ".join(
            f"{number} of {w}×{h} ({printable(Path(examples[w, h].name).name)})"
            for (w, h), number in counts.most_common(3)
        )
        raise DataError(f"images are not squares of one size ({sizes}): pass --force-image-size")
    return width


def require_enough(
    where: Path, good: int, unreadable: Sequence[Unreadable], max_bad_fraction: float
) -> None:
    """Raises a DataError when no image is good, or more than the fraction is unreadable."""
    bad = len(unreadable)
    if not good or bad > max_bad_fraction * (good + bad):
        raise DataError(
            f"{bad} of {good + bad} images in {printable(where)} cannot be read (at most "
            f"{max_bad_fraction:.1%} may be): repair or remove them. {_first(unreadable)}"
        )


def require_readable(unreadable: Sequence[Unreadable]) -> None:
    """Raises a DataError when anything is unreadable."""
    if unreadable:
        raise DataError(
            f"{len(unreadable)} images cannot be read, and an evaluation leaves none out: repair "
            f"or remove them. {_first(unreadable)}"
        )


def _first(unreadable: Sequence[Unreadable]) -> str:
    return f"The first: {'; '.join(map(str, unreadable[:5]))}"


def _moved_up(pixels: Tensor, kept: list[int]) -> Tensor:
    # In place: indexing would hold two copies of a set that just fits.
    for row, index in enumerate(kept):
        if row != index:
            pixels[row] = pixels[index]
    return pixels[: len(kept)]
