"""Pairs from tar archives as webdataset packs them: members of one name, differing in suffix."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sslpurify.data.captions import Pair, caption
from sslpurify.data.folder import SUFFIXES, Unreadable, printable
from sslpurify.data.sources import TarMember, read_member
from sslpurify.data.tar import Entry, entries
from sslpurify.errors import DataError

MAX_MEMBERS = 2**21
"""Most image and caption members of all archives together."""

MAX_TEXT = 2**18
"""Most bytes of a caption's member."""

_RANGE = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")
_MAX_SHARDS = 100_000
_TWICE = "two members of one name"

Sample = dict[str, Entry]
"""Suffix, lower case, to the member that has it."""


class Shards:
    """Images and captions of one name, in the order of the archives.

    The name ends at the first dot of the file name, as in webdataset. The caption is the text of
    the ``.txt`` member or else, as img2dataset writes it, what the ``.json`` member's object has
    under ``caption``. Images without a caption are unreadable. Links, devices, FIFOs and members
    that the archive has twice are too; other members are left out. An archive that is damaged or
    truncated is refused: nobody could say how many images it lacks.

    Args:
        tars: The archives.

    Raises:
        DataError: Not a tar archive, compressed, damaged, or too many members.
        UnsafeInputError: As `entries`.
    """

    def __init__(self, tars: Sequence[Path]) -> None:
        self._samples: list[Sample] = []
        members = 0
        for tar in tars:
            samples: dict[str, Sample] = {}
            for entry in entries(tar):
                name, suffix = _split(entry.member.name)
                if suffix not in (*SUFFIXES, ".txt", ".json"):
                    continue
                members += 1
                if members > MAX_MEMBERS:
                    raise DataError(f"more than {MAX_MEMBERS:,} images and captions: give fewer")
                sample = samples.setdefault(name, {})
                twice = suffix in sample
                sample[suffix] = replace(entry, problem=_TWICE) if twice else entry
            self._samples += (each for each in samples.values() if _images(each))

    def __len__(self) -> int:
        return len(self._samples)

    def pick(self, indices: Sequence[int]) -> list[Pair | Unreadable]:
        """The pairs at ``indices``."""
        return [_pair(self._samples[index]) for index in indices]


def find_shards(path: Path) -> tuple[Path, ...]:
    """The archives that ``path`` stands for: itself, a folder's, or those of ``a-{00..31}.tar``.

    Raises:
        DataError: There are none, or one of the range is missing.
    """
    if path.is_dir():
        tars = tuple(sorted(each for each in path.glob("*.tar") if each.name[0] != "."))
        if not tars:
            raise DataError(f"{printable(path)} has no .tar files")
        return tars
    found = _RANGE.search(str(path))
    if path.exists() or not found:
        return (path,)
    first, last = (int(number) for number in found.groups())
    if not first <= last < first + _MAX_SHARDS:
        raise DataError(f"{printable(path)}: {found[0]} is no range of at most {_MAX_SHARDS:,}")
    before, after = str(path)[: found.start()], str(path)[found.end() :]
    width = len(found[1])
    return tuple(Path(f"{before}{number:0{width}}{after}") for number in range(first, last + 1))


def _split(name: str) -> tuple[str, str]:
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.partition(".")
    return (folder + slash + stem, dot + suffix.lower()) if stem else (name, "")


def _images(sample: Sample) -> list[Entry]:
    return [entry for suffix, entry in sample.items() if suffix in SUFFIXES]


def _pair(sample: Sample) -> Pair | Unreadable:
    image, *others = _images(sample)
    if others:
        return Unreadable(image.member, f"{printable(others[0].member.name)} has the same name")
    if image.problem:
        return Unreadable(image.member, f"{image.problem}, not a file")
    text = sample.get(".txt") or sample.get(".json")
    if text is None:
        return Unreadable(image.member, "no caption (a .txt or .json member of the same name)")
    try:
        return Pair(image.member, (caption(_text(text, ".txt" in sample)),))
    except (ValueError, OSError) as error:
        return Unreadable(text.member, f"the caption {error}")


def _text(entry: Entry, plain: bool) -> str:
    member: TarMember = entry.member
    if entry.problem:
        raise ValueError(f"is {entry.problem}, not a file")
    if member.size > MAX_TEXT:
        raise ValueError(f"is longer than {MAX_TEXT:,} bytes")
    try:
        text = read_member(member).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start}") from None
    if plain:
        return text
    try:
        data: Any = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not valid JSON ({error})") from None
    found: object = data.get("caption") if isinstance(data, dict) else None
    if not isinstance(found, str):
        raise ValueError('is missing: the JSON object has no text under "caption"')
    return found


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
        raise ValueError("a key stands twice in it")
    return found
