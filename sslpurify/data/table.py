"""Pairs from a CSV or TSV file with the columns of open_clip."""

import csv
import os
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import BinaryIO

from sslpurify.data.captions import Pair, caption
from sslpurify.data.folder import Unreadable, printable
from sslpurify.data.sources import opened
from sslpurify.errors import ConfigError, DataError, UnsafeInputError

MAX_RECORD = 2**17
"""Most bytes of a row. The csv module's own limit is global, so that any library may lift it."""

MAX_ROWS = 2**25


class Table:
    """The rows of a CSV or TSV file; read twice, so memory holds only those that are picked.

    Rows count from 1, the header's. Every row must have as many fields as the header, and a
    caption. ``NaN`` and ``123`` are captions like any other. Paths are relative to the folder of
    the file (open_clip takes them relative to the working directory), and what they lead to must
    lie in that folder.

    Args:
        path: The file, UTF-8, with or without a byte order mark.
        img_key: Name of the column of image paths.
        caption_key: Name of the column of captions.
        separator: One character between fields; None takes a comma or a tab, whichever makes the
            header hold both columns.

    Raises:
        ConfigError: ``separator`` is not one character that can separate, or both columns are one.
        DataError: The file is missing, not UTF-8, not a table, or lacks a column or a caption.
    """

    def __init__(
        self, path: Path, img_key: str, caption_key: str, separator: str | None = None
    ) -> None:
        if img_key == caption_key:
            raise ConfigError(f"images and captions cannot both be in column {img_key!r}")
        if separator is not None and (len(separator) != 1 or separator in '"\r\n\0'):
            raise ConfigError(f"separator {separator!r}: must be one character, such as a tab")
        self._path = path
        self._root = os.path.realpath(path.parent)
        self._separator, self._header = self._read_header(img_key, caption_key, separator)
        self._columns = self._header.index(img_key), self._header.index(caption_key)
        self._count = sum(1 for _ in self._rows())

    def __len__(self) -> int:
        return self._count

    def pick(self, indices: Sequence[int]) -> list[Pair | Unreadable]:
        """The pairs of the rows at ``indices``, which ascend and count from 0 below the header.

        Raises:
            UnsafeInputError: A path has a NUL or leaves the folder.
            DataError: The file has changed.
        """
        wanted = set(indices)
        picked: list[Pair | Unreadable] = [
            Pair(self._contained(number, image), (text,))
            for index, (number, image, text) in enumerate(self._rows())
            if index in wanted
        ]
        if len(picked) != len(wanted):
            raise DataError(f"{printable(self._path)} changed while it was read")
        return picked

    def _read_header(
        self, img_key: str, caption_key: str, separator: str | None
    ) -> tuple[str, list[str]]:
        tried = (separator,) if separator else ("," if self._path.suffix == ".csv" else "\t", ",\t")
        tried = tuple(dict.fromkeys("".join(tried)))
        headers = [next(self._records(each), (0, []))[1] for each in tried]
        for each, header in zip(tried, headers, strict=True):
            if header.count(img_key) == header.count(caption_key) == 1:
                return each, header
        missing = [key for key in (img_key, caption_key) if headers[0].count(key) != 1]
        found = ", ".join(f"'{printable(name[:80])}'" for name in headers[0][:20])
        raise DataError(
            f"{printable(self._path)} has not one column {' and one '.join(map(repr, missing))} "
            f"but {found or 'none at all'}: name its columns with --csv-img-key and "
            "--csv-caption-key, what stands between them with --csv-separator"
        )

    def _rows(self) -> Iterator[tuple[int, str, str]]:
        """Number, path and caption of every row below the header."""
        records = self._records(self._separator)
        next(records, None)
        for number, record in records:
            if len(record) != len(self._header):
                raise self._error(
                    number,
                    f"has {len(record)} fields, the header {len(self._header)}: quote fields that "
                    "contain the separator",
                )
            image, text = (record[column] for column in self._columns)
            try:
                text = caption(text)
            except ValueError as error:
                raise self._error(number, f"the caption {error}") from None
            if not image:
                raise self._error(number, "the path of the image is empty")
            yield number, image, text

    def _records(self, separator: str) -> Iterator[tuple[int, list[str]]]:
        """Every record with its number; empty lines are left out."""
        try:
            with opened(self._path) as file:
                lines = _Lines(self._path, file)
                reader = csv.reader(lines, delimiter=separator)
                for number in count(1):
                    lines.pending = 0
                    try:
                        record = next(reader, None)
                    except csv.Error as error:
                        raise self._error(number, str(error)) from None
                    if record is None:
                        return
                    if lines.ended:
                        raise self._error(number, "a quotation mark is never closed")
                    if number > MAX_ROWS:
                        raise self._error(number, f"at most {MAX_ROWS:,} rows are read: split it")
                    if record:
                        yield number, record
        except OSError as error:
            raise DataError(f"{printable(self._path)}: {error.strerror or error}") from error

    def _contained(self, number: int, image: str) -> Path:
        """Where a path leads: resolved once, so that a link changed later changes nothing."""
        if "\0" not in image:
            path = Path(os.path.realpath(Path(self._root, image)))
            if path.is_relative_to(self._root):
                return path
        raise UnsafeInputError(
            f"{printable(self._path)}, row {number}: '{printable(image)[:200]}' leaves the folder "
            "of the file: put the images into it"
        )

    def _error(self, number: int, what: str) -> DataError:
        return DataError(f"{printable(self._path)}, row {number}: {what}")


class _Lines:
    """Lines of a file as text, with a bound on what is read between two resets of ``pending``."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._offset = 0
        self.pending = 0
        self.ended = False

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_RECORD + 1)
        if not line:
            self.ended = True
            raise StopIteration
        self.pending += len(line)
        if self.pending > MAX_RECORD:
            raise DataError(
                f"{printable(self._path)}: the row that ends after byte {self._offset:,} is longer "
                f"than {MAX_RECORD:,} bytes: is a quotation mark not closed?"
            )
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{printable(self._path)}: not UTF-8 at byte {self._offset + error.start:,}: "
                "save it as UTF-8"
            ) from None
        start, self._offset = self._offset, self._offset + len(line)
        return text if start else text.removeprefix("\ufeff")
