"""Which files of a folder are images."""

import logging
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sslpurify.data.sources import Source
from sslpurify.errors import DataError

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pnm")
)


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unreadable:
    """A file, folder or member that should hold images and does not give them, and why."""

    source: Source
    reason: str

    def __str__(self) -> str:
        return f"{printable(self.source)}: {self.reason}"


@dataclass(frozen=True)
class Listing:
    """What lies in a folder.

    Args:
        files: Files with an image's suffix, sorted by their path relative to the folder.
        unreadable: Links that leave the folder or lead nowhere, special files, closed folders.
        others: Number of files left out because their suffix is not an image's.
    """

    files: tuple[Path, ...]
    unreadable: tuple[Unreadable, ...]
    others: int


def printable(text: str | Source) -> str:
    """``text`` with what a terminal or a UTF-8 file must not be given written as an escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def require_folder(folder: Path) -> None:
    """Raises a DataError unless ``folder`` is one."""
    if not folder.exists():
        raise DataError(f"{printable(folder)} does not exist: give a folder of images")
    if not folder.is_dir():
        raise DataError(f"{printable(folder)} is a file: give the folder its images lie in")


def list_images(folder: Path, *, exclude: Collection[Path] = ()) -> Listing:
    """Lists the images of a folder at any depth, in the same order on every machine.

    Hidden files and folders (``.git``, ``._a.jpg``) are left out, and so are folders of runs, whose
    pictures are no data; these are told to the log. Links to folders are not followed; a link to a
    file is taken when the file lies in the folder too.

    Args:
        folder: Where to look.
        exclude: Folders inside it that are left out, for example the run's own output.

    Raises:
        DataError: ``folder`` is missing or not a folder.
    """
    require_folder(folder)
    root = Path(os.path.realpath(folder))
    excluded = {os.path.realpath(path) for path in exclude}
    files: list[Path] = []
    unreadable: list[Unreadable] = []
    others = 0
    pending = [folder]
    while pending:
        directory = pending.pop()
        try:
            entries = _visible(directory)
        except OSError as error:
            unreadable.append(Unreadable(directory, f"cannot be listed: {error.strerror}"))
            continue
        for entry in entries:
            path = directory / entry.name
            if entry.is_dir(follow_symlinks=False):
                if os.path.realpath(path) not in excluded and not _of_a_run(path):
                    pending.append(path)
            elif reason := _problem(entry, path, root):
                unreadable.append(Unreadable(path, reason))
            elif entry.is_symlink() and path.is_dir():
                continue
            elif path.suffix.lower() in SUFFIXES:
                files.append(path)
            else:
                others += 1
    return Listing(
        tuple(sorted(files, key=lambda path: path.relative_to(folder).as_posix())),
        tuple(sorted(unreadable, key=lambda item: str(item.source))),
        others,
    )


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the folders in ``folder``, sorted as strings; folders of runs are left out.

    Raises:
        DataError: ``folder`` is missing or has no folders, a link for one, or images of its own.
    """
    require_folder(folder)
    try:
        entries = _visible(folder)
    except OSError as error:
        raise DataError(f"{printable(folder)} cannot be listed: {error.strerror}") from error
    for entry in entries:
        path = folder / entry.name
        if entry.is_symlink() and path.is_dir():
            raise DataError(f"class folder {printable(path)} is a symbolic link: copy it in")
        if not entry.is_dir(follow_symlinks=False) and path.suffix.lower() in SUFFIXES:
            raise DataError(f"{printable(path)} lies outside the class folders: move it into one")
    folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    names = sorted(name for name in folders if not _of_a_run(folder / name))
    if not names:
        raise DataError(f"{printable(folder)} has no class folders: put each class's images in one")
    return tuple(names)


def _of_a_run(folder: Path) -> bool:
    """Whether a folder holds what a run left, complete or not; says so in the log."""
    known = (folder / "config.yaml").is_file() and any(
        (folder / name).is_file() for name in ("report.json", "metrics.jsonl")
    )
    if known or ".partial-" in folder.name:
        log.warning("left out: %s: the folder of a run", printable(folder))
        return True
    return False


def _visible(directory: Path) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _problem(entry: os.DirEntry[str], path: Path, root: Path) -> str | None:
    """Why what should give images does not; None for an image and for what is none of our own."""
    is_image = path.suffix.lower() in SUFFIXES
    if not entry.is_symlink():
        return "not a regular file" if is_image and not entry.is_file() else None
    if not is_image and not path.is_dir():
        return None
    if not Path(os.path.realpath(path)).is_relative_to(root):
        return "symbolic link that leaves the folder: copy in what it leads to"
    return None if path.exists() else "symbolic link that leads nowhere"
