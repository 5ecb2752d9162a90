"""What a file says of its tensors and where it keeps their data; nothing here holds weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch

Container = Literal["safetensors", "torch-zip", "torch-legacy", "torchscript"]


class Span(NamedTuple):
    """Where the data of one storage lies in a file.

    Args:
        start: The offset of its first byte.
        size: In bytes.
        checksums: The offsets at which a CRC-32 of it stands.
    """

    start: int
    size: int
    checksums: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Storage:
    """The memory of one tensor or of several.

    Args:
        key: Its name in the file.
        dtype: Of its elements.
        elements: Their number.
    """

    key: str
    dtype: torch.dtype
    elements: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.elements * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor as a file describes it.

    Args:
        storage: Where its data is; None where it has none.
        dtype: Of its elements.
        offset: Of its first element in the storage, in elements.
        shape: Its shape.
        stride: Its strides, in elements.
        oddity: What makes it no plain dense tensor (``sparse``); empty when it is one.
    """

    storage: Storage | None
    dtype: torch.dtype
    offset: int = 0
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    oddity: str = ""


@dataclass(frozen=True, eq=False)
class Name:
    """A class or function that a pickle names; it is never looked up."""

    text: str


@dataclass(frozen=True, eq=False)
class Inert:
    """What a pickle would make by running code; here it is made of nothing but its ingredients.

    Args:
        name: Of the class.
        content: What it was given: arguments, items and attributes.
    """

    name: str
    content: list[Any] = field(default_factory=list[Any])


@dataclass(frozen=True, eq=False)
class Key:
    """A key of a dictionary that is no text; two of one value are two keys."""

    value: Any


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file holds.

    Args:
        container: Its format.
        tree: Plain data, `Stored`, `Inert` and `Name`, as `pickles` makes them.
        spans: The key of each storage to where it lies.
        inert: What the file names and nothing was made of.
        metadata: That of a safetensors file.
    """

    container: Container
    tree: Any
    spans: Mapping[str, Span]
    inert: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict[str, str])
