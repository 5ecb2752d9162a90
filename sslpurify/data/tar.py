"""Members of an uncompressed tar archive: where each lies, without extracting any.

Read by hand: ``tarfile`` loops for ever or takes a header's word for gigabytes on hostile archives
in some of the Python versions supported here.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO

from sslpurify.data.folder import printable
from sslpurify.data.sources import TarMember, opened
from sslpurify.errors import DataError, UnsafeInputError

MAX_HEADER = 2**20
"""Most bytes of an extended header; an honest one holds a name."""

_MAX_NAME = 4096
_BLOCK = 512
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_KINDS = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device"}
_KINDS[b"6"] = "a FIFO"
_FILES = (b"\0", b"0", b"7")
_EXTENSIONS = (b"x", b"g", b"L", b"K")


@dataclass(frozen=True, slots=True)
class Entry:
    """A member as the archive lists it; ``problem`` says why one that is no file has no data."""

    member: TarMember
    problem: str | None = None


def entries(tar: Path) -> Iterator[Entry]:
    """Lists what an archive holds, in its order; folders are left out.

    Reads the formats v7, ustar, pax and GNU. Data after the closing block are ignored.

    Args:
        tar: The archive.

    Raises:
        DataError: Not an uncompressed tar archive, damaged, truncated, or with sparse members.
        UnsafeInputError: A member's name leaves the archive's folder, or a header is absurd.
    """
    try:
        with opened(tar) as file:
            yield from _Archive(tar, file).entries()
    except OSError as error:
        raise DataError(f"{printable(tar)}: {error.strerror or error}") from error


@dataclass
class _Archive:
    tar: Path
    file: BinaryIO

    def entries(self) -> Iterator[Entry]:
        end = self.file.seek(0, os.SEEK_END)
        self.file.seek(0)
        extra: dict[bytes, bytes] = {}
        for number in count(1):
            header = self.file.read(_BLOCK)
            if len(header) == _BLOCK and not any(header):
                return
            self._check(header, number)
            kind = header[156:157]
            told = None if kind in _EXTENSIONS else extra.get(b"size")
            size = self._size(told, header, number)
            start = self.file.tell()
            # Links and folders carry no data, whatever their size field says.
            has_data = kind not in _KINDS and kind != b"5"
            if has_data and start + size > end:
                raise self._error(
                    number, "runs past the end: the archive is truncated; fetch or pack it again"
                )
            if kind in _EXTENSIONS:
                extra |= self._extension(kind, size, number)
            else:
                name = self._name(extra, header, number)
                extra = {}
                member = TarMember(self.tar, name, start, size)
                if kind in _FILES and not name.endswith("/"):
                    yield Entry(member)
                elif kind != b"5" and not name.endswith("/"):
                    yield Entry(member, _KINDS.get(kind, "of an unknown kind"))
            if has_data:
                self.file.seek(start + -(-size // _BLOCK) * _BLOCK)

    def _check(self, header: bytes, number: int) -> None:
        for magic, name in _COMPRESSED.items():
            if number == 1 and header.startswith(magic):
                raise DataError(f"{printable(self.tar)} is compressed ({name}): unpack it to .tar")
        if len(header) < _BLOCK:
            raise self._error(
                number, "is missing: the archive is empty or truncated; fetch or pack it again"
            )
        spaces = header[:148] + b" " * 8 + header[156:]
        stated = _octal(header[148:156])
        signed = sum(spaces) - 256 * sum(byte > 127 for byte in spaces)
        if stated is None or stated not in (sum(spaces), signed):
            raise self._error(number, "is damaged (or the file is no tar archive)")
        if header[156:157] == b"S":
            raise self._error(number, "is sparse: pack the archive without --sparse")

    def _size(self, told: bytes | None, header: bytes, number: int) -> int:
        field = header[124:136]
        if told is not None:
            size = int(told) if told.isdigit() and len(told) < 20 else None
        elif field[0] == 0x80:
            size = int.from_bytes(field[1:], "big")
        else:
            size = _octal(field)
        if size is None:
            raise self._error(number, "has no valid size")
        return size

    def _extension(self, kind: bytes, size: int, number: int) -> dict[bytes, bytes]:
        """What an extended header says of the next member: its ``path``, its ``size``."""
        if size > MAX_HEADER:
            raise UnsafeInputError(
                f"{printable(self.tar)}: header {number} is longer than {MAX_HEADER:,} bytes"
            )
        data = self.file.read(size)
        if kind == b"L":
            return {b"path": data.split(b"\0", 1)[0]}
        if kind == b"K":
            return {}
        found = self._records(data, number)
        if any(key.startswith(b"GNU.sparse") for key in found):
            raise self._error(number, "is sparse: pack the archive without --sparse")
        told = {key: found[key] for key in (b"path", b"size") if key in found}
        if kind == b"g" and told:
            raise self._error(number, "gives all members one name or size")
        return told

    def _records(self, data: bytes, number: int) -> dict[bytes, bytes]:
        """The records of a pax header: ``length key=value`` and a newline each."""
        found: dict[bytes, bytes] = {}
        position = 0
        while position < len(data):
            digits, space, _ = data[position : position + 9].partition(b" ")
            end = position + (int(digits) if digits.isdigit() else 0)
            start = position + len(digits) + 1
            if not space or not start < end <= len(data) or data[end - 1 : end] != b"\n":
                raise self._error(number, "is a damaged pax header")
            key, _, value = data[start : end - 1].partition(b"=")
            found[key] = value
            position = end
        return found

    def _name(self, extra: dict[bytes, bytes], header: bytes, number: int) -> str:
        raw = header[:100].split(b"\0", 1)[0]
        prefix = header[345:500].split(b"\0", 1)[0]
        if prefix and header[257:263] == b"ustar\0":
            raw = prefix + b"/" + raw
        # Undecodable bytes stay apart from each other; they are only ever shown escaped.
        name = extra.get(b"path", raw).decode("utf-8", "surrogateescape")
        parts = name.replace("\\", "/").split("/")
        if "\0" in name or ".." in parts or not parts[0] or len(name) > _MAX_NAME:
            raise UnsafeInputError(
                f"{printable(self.tar)}: the name of member {number}, '{printable(name)[:200]}', "
                "is none inside a folder: the archive was refused"
            )
        return name.removeprefix("./")

    def _error(self, number: int, what: str) -> DataError:
        return DataError(f"{printable(self.tar)}: header {number} {what}")


def _octal(field: bytes) -> int | None:
    """A number as tar writes it: octal digits, padded by spaces or NUL; empty means 0."""
    text = field.split(b"\0", 1)[0].strip(b" ")
    return int(text or b"0", 8) if all(byte in b"01234567" for byte in text) else None
