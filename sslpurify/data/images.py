"""Images without labels, images with labels, and the order in which they are visited."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from sslpurify.data.decode import encode_png
from sslpurify.data.folder import Unreadable, class_folders, list_images, printable
from sslpurify.data.loading import common_size, decode_all, load, require_readable
from sslpurify.data.sources import Held, Source
from sslpurify.errors import ConfigError, DataError
from sslpurify.rng import generator
from sslpurify.types import Listener, silent

MEMORY_LIMIT = 2 * 2**30
"""Most bytes of pixels that a set keeps in memory; a larger one is decoded again batch by batch.

14,000 images of 224 pixels, or 700,000 of 32: far more than a purification asks for.
"""

_CHUNK = 2**24
"""Bytes of pixels that are hashed at once."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Square 8-bit RGB images of one size, in memory or on disk, without any labels.

    Args:
        size: Height and width in pixels.
        sources: What each image is read from, in order; empty where the images came from memory.
        pixels: The images, or None where they are decoded anew for every batch.
        unreadable: Files that the folder had and this set has not, each with its reason.
        others: Number of files in the folder that are no images by their suffix.
    """

    size: int
    sources: tuple[Source, ...] = field(repr=False)
    pixels: UInt8[Tensor, "n 3 s s"] | None = field(repr=False)
    unreadable: tuple[Unreadable, ...] = ()
    others: int = 0

    def __len__(self) -> int:
        return len(self.sources) if self.pixels is None else len(self.pixels)

    def named(self, indices: Int64[Tensor, " b"], limit: int = 8) -> str:
        """The images at ``indices`` for an error message: files, or numbers; not all of many."""
        rows = indices[:limit].tolist()
        names = [printable(self.sources[row]) if self.sources else f"image {row}" for row in rows]
        more = f" and {len(indices) - limit} more" if len(indices) > limit else ""
        return ", ".join(names) + more

    def batch(self, indices: Int64[Tensor, " b"]) -> Float32[Tensor, "b 3 s s"]:
        """The images at ``indices`` as float32 in [0, 1].

        Raises:
            ImageError: A file was readable when the set was made and is no longer.
        """
        return self._rows(indices).to(torch.float32).div_(255)

    def digest(self) -> str:
        """SHA-256 of all pixels in order: the same for the same images wherever they lie."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        """Once: a set that is not in memory is decoded for it."""
        total = hashlib.sha256(f"{len(self)} {self.size}\n".encode())
        for rows in torch.arange(len(self)).split(max(1, _CHUNK // (3 * self.size**2))):
            total.update(self._rows(rows).contiguous().numpy().data)
        return total.hexdigest()

    def _rows(self, indices: Int64[Tensor, " b"]) -> UInt8[Tensor, "b 3 s s"]:
        if self.pixels is not None:
            return self.pixels[indices]
        return decode_all([self.sources[index] for index in indices.tolist()], self.size)


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with the class each belongs to; for probes only.

    Args:
        images: The images.
        labels: Index into ``classes`` of every image.
        classes: Names of the classes, sorted as strings ("10" before "2").
    """

    images: ImageSet
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]


def from_pixels(pixels: UInt8[Tensor, "n 3 s s"]) -> ImageSet:
    """An image set of images in memory (shared with the caller, not copied)."""
    return ImageSet(size=pixels.shape[-1], sources=(), pixels=pixels)


def subset(images: ImageSet, indices: Int64[Tensor, " m"]) -> ImageSet:
    """The images at ``indices``, in that order."""
    return replace(
        images,
        sources=tuple(images.sources[index] for index in indices.tolist())
        if images.sources
        else (),
        pixels=None if images.pixels is None else images.pixels[indices],
    )


def replaced(
    images: ImageSet, indices: Int64[Tensor, " m"], pixels: UInt8[Tensor, "m 3 s s"]
) -> ImageSet:
    """The set with other pixels at ``indices``; of a set on disk only these are kept in memory."""
    if images.pixels is not None:
        return replace(images, pixels=images.pixels.index_copy(0, indices, pixels))
    sources = list(images.sources)
    for index, image in zip(indices.tolist(), pixels, strict=True):
        sources[index] = Held(str(sources[index]), encode_png(image))
    return replace(images, sources=tuple(sources))


def read_labelled(
    folder: Path,
    size: int | None,
    *,
    classes: Sequence[str] | None = None,
    limit_per_class: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
    listener: Listener = silent,
) -> LabelledImages:
    """Reads a folder with one folder of images a class.

    Rates are computed on these images, so nothing is left out silently: what cannot be read is an
    error, and so is a class without images, which would shift the numbers of the classes after it.

    Args:
        folder: Holds the class folders and no images of its own.
        size: As in `read_images`.
        classes: The classes that there must be, no more and no fewer; None: any.
        limit_per_class: Most images of a class. They are a fixed random choice, the same for every
            run, as names often follow some order of taking the images; a smaller limit gives a
            part of a larger one's, and no class's choice depends on another class.
        memory_limit: Most bytes of pixels kept in memory.
        listener: Told about every chunk of files.

    Raises:
        DataError: as said, and for a missing folder or one without class folders.
    """
    if limit_per_class is not None and limit_per_class < 1:
        raise ConfigError(f"limit of {limit_per_class} images a class: must be at least 1")
    names = class_folders(folder)
    _require_classes(folder, names, names if classes is None else classes)
    files: list[Path] = []
    labels: list[int] = []
    unreadable: list[Unreadable] = []
    for label, name in enumerate(names):
        listing = list_images(folder / name)
        unreadable += listing.unreadable
        if not listing.files and not listing.unreadable:
            raise DataError(
                f"class folder {printable(folder / name)} has no images: put some into it, or "
                "remove the class wherever it is measured"
            )
        order = torch.randperm(len(listing.files), generator=generator(0, "limit", name))
        chosen = [listing.files[i] for i in order[:limit_per_class].sort().values.tolist()]
        files += chosen
        labels += [label] * len(chosen)
    if not files:
        require_readable(unreadable)
    size = common_size(files) if size is None else size
    loaded = load(files, size, memory_limit, listener)
    require_readable([*unreadable, *loaded.unreadable])
    return LabelledImages(
        ImageSet(size, loaded.sources, loaded.pixels), torch.tensor(labels), names
    )


def _require_classes(folder: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    missing, more = set(wanted) - set(names), set(names) - set(wanted)
    if missing or more:
        told = [
            f"{what} {', '.join(map(printable, sorted(some)))}"
            for what, some in (("it lacks", missing), ("it alone has", more))
            if some
        ]
        raise DataError(
            f"{printable(folder)} differs in its classes from the images it is measured with: "
            f"{'; '.join(told)}. Labels go by the folders' names: give both the same class folders"
        )


def step_batch(
    count: int, batch_size: int, seed: int, stream: str, step: int, *, drop_last: bool = True
) -> Int64[Tensor, " b"]:
    """The indices of one step, from 0, over epochs of `epoch_batches`, which see for the arguments.

    Raises:
        ConfigError: As `epoch_batches`.
        DataError: As `epoch_batches`.
    """
    per_epoch = count // batch_size if drop_last else -(-count // batch_size)
    epoch, place = divmod(step, max(1, per_epoch))
    return _epoch(count, batch_size, seed, stream, epoch, drop_last=drop_last)[place]


@lru_cache(maxsize=2)
def _epoch(
    count: int, batch_size: int, seed: int, stream: str, epoch: int, *, drop_last: bool
) -> tuple[Tensor, ...]:
    return tuple(epoch_batches(count, batch_size, seed, stream, epoch, drop_last=drop_last))


def epoch_batches(
    count: int, batch_size: int, seed: int, stream: str, epoch: int, *, drop_last: bool = True
) -> Iterator[Int64[Tensor, " b"]]:
    """Shuffled indices of one epoch, a function of the seed, the stream and the epoch alone.

    Args:
        count: Number of images.
        batch_size: Images in a batch.
        seed: The run's seed.
        stream: Name of the work, so that two pieces of work never share an order.
        epoch: Number of the epoch.
        drop_last: Leave out the last batch when it is not full (a contrastive loss depends on the
            batch's size). False keeps it.

    Raises:
        ConfigError: The batch size is not positive.
        DataError: Not even one batch comes of it.
    """
    if batch_size < 1:
        raise ConfigError(f"batch size {batch_size}: must be at least 1")
    if count < (batch_size if drop_last else 1):
        raise DataError(
            f"{count} images do not fill one batch of {batch_size}: "
            "give more images or a smaller batch size"
        )
    order = torch.randperm(count, generator=generator(seed, stream, epoch))
    whole = count // batch_size * batch_size if drop_last else count
    return iter(order[:whole].split(batch_size))
