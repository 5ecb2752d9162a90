"""The zip archive in which torch keeps a checkpoint: where its members lie, and nothing else.

Readers of zips differ in what they forgive, and a file made to look different to two of them has
been a way around scanners more than once. Here only what torch itself writes is read: stored
members one behind the other, the directory behind them, its end at the end of the file.
"""

import os
import struct
from collections.abc import Iterator
from io import BufferedReader
from itertools import pairwise
from typing import NamedTuple

from sslpurify.checkpoint.stored import Span
from sslpurify.errors import CheckpointError, UnsafeInputError

_MAX_MEMBERS = 50_000
_MAX_DIRECTORY = 32 * 2**20
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_FULL = 0xFFFFFFFF
_DESCRIPTOR = b"PK\x07\x08"
_ENCRYPTED = 1


class _Entry(NamedTuple):
    """What the directory says of a member; ``at`` is where it says so."""

    name: bytes
    flags: int
    method: int
    packed: int
    size: int
    header: int
    at: int


class Archive(NamedTuple):
    """What is in an archive.

    Args:
        members: Name to where the data lies; of packed members where the packed data does.
        packed: The names of those that are packed.
    """

    members: dict[str, Span]
    packed: tuple[str, ...]


def survey(file: BufferedReader) -> Archive:
    """Where the data of each member lies.

    Raises:
        UnsafeInputError: It has more members than any checkpoint, or members that overlap.
        CheckpointError: It is truncated, damaged, or laid out as torch does not.
    """
    try:
        size = file.seek(0, os.SEEK_END)
        start, directory = _directory(file, size)
        entries = list(_entries(directory, start))
        names = [entry.name.decode() for entry in entries]
        if len({name.lower() for name in names}) != len(names):
            raise CheckpointError(
                "a zip archive that holds two members of one name: it was tampered"
            )
        spans = [_span(file, entry) for entry in entries]
    except (ValueError, struct.error) as error:
        raise CheckpointError(
            "a zip archive that is truncated or damaged: download it again"
        ) from error
    edges = sorted((span.start, span.start + span.size) for span in spans)
    if any(before[1] > after[0] for before, after in pairwise([*edges, (start, size)])):
        raise UnsafeInputError(
            f"a zip archive whose members overlap, so that its {size:,} bytes could become any "
            "number: it would exhaust memory"
        )
    packed = tuple(name for name, entry in zip(names, entries, strict=True) if entry.method)
    return Archive(dict(zip(names, spans, strict=True)), packed)


def _read(file: BufferedReader, at: int, size: int) -> bytes:
    if at < 0:
        raise ValueError("outside the file")
    file.seek(at)
    return file.read(size)


def _directory(file: BufferedReader, size: int) -> tuple[int, bytes]:
    """Where the directory of the members starts, and its bytes."""
    end = size - _END.size
    magic, *_, count, length, start, comment = _END.unpack(_read(file, end, _END.size))
    if magic != b"PK\x05\x06" or comment:
        raise ValueError("no end of the archive at the end of the file")
    locator = _read(file, max(end - _LOCATOR_64.size, 0), _LOCATOR_64.size)
    if locator.startswith(b"PK\x06\x07"):
        end = _LOCATOR_64.unpack(locator)[2]
        record = _END_64.unpack(_read(file, end, _END_64.size))
        if record[0] != b"PK\x06\x06" or end + _END_64.size + _LOCATOR_64.size + _END.size != size:
            raise ValueError("another end of the archive")
        count, length, start = record[7:]
    if start + length != end:
        raise ValueError("something stands between the directory and the end")
    if count > _MAX_MEMBERS or length > _MAX_DIRECTORY:
        raise UnsafeInputError(f"a zip archive of {count:,} members would exhaust memory")
    directory = _read(file, start, length)
    if len(directory) != length:
        raise ValueError("cut off")
    return start, directory


def _entries(directory: bytes, start: int) -> Iterator[_Entry]:
    at = 0
    while at < len(directory):
        magic, _, _, flags, method, _, _, _, packed, size, *lengths, _, _, _, header = (
            _ENTRY.unpack_from(directory, at)
        )
        name_length, extra_length, comment_length = lengths
        if magic != b"PK\x01\x02" or flags & _ENCRYPTED:
            raise ValueError("not an entry of a directory")
        name = directory[at + _ENTRY.size :][:name_length]
        extra = directory[at + _ENTRY.size + name_length :][:extra_length]
        size, packed, header = _wide(extra, size, packed, header)
        yield _Entry(name, flags, method, packed, size, header, start + at)
        at += _ENTRY.size + name_length + extra_length + comment_length


def _wide(extra: bytes, *numbers: int) -> Iterator[int]:
    """Numbers of 64 bits stand in the extra field, in this order, where 32 do not suffice."""
    wide = b""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        wide = extra[4 : 4 + length] if kind == 1 else wide
        extra = extra[4 + length :]
    for number in numbers:
        if number == _FULL:
            yield struct.unpack_from("<Q", wide)[0]
            wide = wide[8:]
        else:
            yield number


def _span(file: BufferedReader, entry: _Entry) -> Span:
    """Where a member's data lies, and where its checksum stands: at up to three places."""
    local = _read(file, entry.header, _LOCAL.size)
    magic, *_, name_length, extra_length = _LOCAL.unpack(local)
    name = file.read(name_length)
    if magic != b"PK\x03\x04" or name != entry.name or not _fits(entry):
        raise ValueError("a member is not what the directory says")
    start = entry.header + _LOCAL.size + name_length + extra_length
    signed = _read(file, start + entry.packed, 4) == _DESCRIPTOR
    (checksum,) = struct.unpack("<L", _read(file, entry.at + 16, 4))
    places = (entry.at + 16, entry.header + 14, start + entry.packed + 4 * signed)
    found = tuple(place for place in places if _read(file, place, 4) == struct.pack("<L", checksum))
    return Span(start, entry.packed, found)


def _fits(entry: _Entry) -> bool:
    return bool(entry.method) or entry.packed == entry.size
