"""Where the bytes of one image lie: a file, a member of a tar archive, or memory."""

import io
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_MEMBER = 2**28
"""Most bytes of one member of an archive; an uncompressed image at the pixel limit has as many."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A member of an uncompressed tar archive; nothing is ever extracted.

    Args:
        tar: The archive.
        name: The member's name in it, for people.
        offset: Where its data start, in bytes from the start of the archive.
        size: How long they are, in bytes.
    """

    tar: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.tar}:{self.name}"


@dataclass(frozen=True, slots=True)
class Held:
    """An encoded image in memory, in the place of a source on disk.

    Args:
        name: Of the source whose place it takes, for people.
        data: The bytes of an image file.
    """

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name


Source = Path | TarMember | Held
"""What an image is read from."""


@contextmanager
def opened(source: Source) -> Generator[BinaryIO]:
    """The bytes of a source as a file that can be sought in.

    Raises:
        OSError: It cannot be read; the text says why.
    """
    if isinstance(source, Held):
        yield io.BytesIO(source.data)
        return
    if isinstance(source, TarMember):
        yield io.BytesIO(read_member(source))
        return
    with _regular(source) as file:
        yield file


def _regular(path: Path) -> BinaryIO:
    # A FIFO would block open() for ever; a device would never end.
    if not path.is_file():
        raise OSError("not a regular file" if path.exists() else "does not exist")
    return path.open("rb")


def read_member(source: TarMember) -> bytes:
    """All bytes of a member.

    Raises:
        OSError: It cannot be read; the text says why.
    """
    if source.size > MAX_MEMBER:
        raise OSError(f"too large: more than {MAX_MEMBER:,} bytes")
    with _regular(source.tar) as file:
        file.seek(source.offset)
        data = file.read(source.size)
    if len(data) < source.size:
        raise OSError("the archive ends before it does")
    return data
