"""Many files at once: decoded by a few threads, every failure kept.

Threads and no processes: decoders release Python's lock, signals reach the main thread alone, and
no thread can die without its error arriving where its result is waited for. Whatever their number,
each image goes to its own row, so results do not depend on it.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import UInt8
from torch import Tensor

from sslpurify.data.decode import ImageError, decode_image, image_size
from sslpurify.data.folder import Unreadable, printable
from sslpurify.data.sources import Source
from sslpurify.errors import ConfigError, DataError
from sslpurify.types import Listener, Step

THREADS = min(8, os.cpu_count() or 1)
"""Images that are decoded at a time."""

_CHUNK = 64
_SHOWN = 10

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Loaded:
    """What became of a list of images: the readable ones in order, their pixels, and the rest.

    ``kept`` says where in the list the readable ones stood.
    """

    kept: tuple[int, ...]
    sources: tuple[Source, ...]
    pixels: UInt8[Tensor, "n 3 s s"] | None
    unreadable: tuple[Unreadable, ...]


def decode_all(
    sources: Sequence[Source], size: int, threads: int = THREADS
) -> UInt8[Tensor, "n 3 s s"]:
    """Decodes all images to one tensor; beside it, memory holds one image a thread.

    Raises:
        ImageError: One of them cannot be read.
    """
    pixels = torch.empty(len(sources), 3, size, size, dtype=torch.uint8)
    rows = pixels.numpy()  # torch would start its own threads in each of ours

    def decode(index: int) -> None:
        rows[index] = decode_image(sources[index], size).numpy()

    for _ in _each(decode, range(len(sources)), threads):
        pass
    return pixels


def load(
    sources: Sequence[Source],
    size: int,
    memory_limit: int,
    listener: Listener,
    threads: int = THREADS,
) -> Loaded:
    """Decodes every image once; keeps the pixels when they fit in ``memory_limit`` bytes."""
    if size < 1:
        raise ConfigError(f"image size {size}: must be at least 1 pixel")
    fits = len(sources) * 3 * size * size <= memory_limit
    pixels = torch.empty(len(sources) if fits else 0, 3, size, size, dtype=torch.uint8)
    rows = pixels.numpy()

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
    for step, failures in enumerate(_each(decode_chunk, starts, threads), start=1):
        reasons |= failures
        done = min(_CHUNK, len(sources) - starts[step - 1])
        listener(Step("reading images", step, len(starts), done))
    kept = [index for index in range(len(sources)) if index not in reasons]
    return Loaded(
        kept=tuple(kept),
        sources=tuple(sources[index] for index in kept),
        pixels=_moved_up(pixels, kept) if fits else None,
        unreadable=tuple(Unreadable(sources[index], reasons[index]) for index in sorted(reasons)),
    )


def only(loaded: Loaded, rows: Sequence[int]) -> Loaded:
    """Those of the readable images, ascending; the pixels are moved in place, not copied."""
    return replace(
        loaded,
        kept=tuple(loaded.kept[row] for row in rows),
        sources=tuple(loaded.sources[row] for row in rows),
        pixels=None if loaded.pixels is None else _moved_up(loaded.pixels, rows),
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
    total = good + bad
    if not total:
        raise DataError(f"{printable(where)} has no images")
    if not good:
        raise DataError(
            f"none of {total} images in {printable(where)} can be read:{_first(unreadable)}"
        )
    if bad > max_bad_fraction * total:
        raise DataError(
            f"{bad} of {total} images in {printable(where)} cannot be read, {_percent(bad / total)}"
            f" (at most {_percent(max_bad_fraction)} may be): repair or remove them, or allow more "
            f"with max_bad_fraction:{_first(unreadable)}"
        )


def require_readable(unreadable: Sequence[Unreadable]) -> None:
    """Raises a DataError when anything is unreadable."""
    if unreadable:
        raise DataError(
            f"{len(unreadable)} images cannot be read, and an evaluation leaves none out: repair "
            f"or remove them:{_first(unreadable)}"
        )


def _each(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """What a function makes of items, in their order, by some threads at once."""
    with ThreadPoolExecutor(threads) as pool:
        try:
            yield from pool.map(function, items)
        except BaseException:  # Ctrl-C must not wait for the items still queued
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _first(unreadable: Sequence[Unreadable]) -> str:
    """The first of them, one a line; a single one ends the line that it belongs to."""
    if len(unreadable) == 1:
        return f" {unreadable[0]}"
    lines = [str(item) for item in unreadable[:_SHOWN]]
    if len(unreadable) > _SHOWN:
        lines.append(f"and {len(unreadable) - _SHOWN:,} more")
    return "".join(f"\n  {line}" for line in lines)


def _moved_up(pixels: Tensor, kept: Sequence[int]) -> Tensor:
    # In place: indexing would hold two copies of a set that just fits.
    for row, index in enumerate(kept):
        if row != index:
            pixels[row] = pixels[index]
    return pixels[: len(kept)]
