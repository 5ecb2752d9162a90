"""Images with captions, from tables, tar archives or class folders; none of them with a label."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jaxtyping import Float, Int64
from torch import Tensor

from sslpurify.data.captions import Pair, caption
from sslpurify.data.drawing import Listed, Pool, scan
from sslpurify.data.folder import Unreadable, class_folders, list_images, printable
from sslpurify.data.images import MEMORY_LIMIT, ImageSet
from sslpurify.data.prompts import SIMPLE_TEMPLATES, class_prompts
from sslpurify.data.shards import Shards, find_shards
from sslpurify.data.table import Table
from sslpurify.errors import DataError
from sslpurify.types import Listener, silent

PairsKind = Literal["csv", "webdataset", "class-folders"]
"""How pairs are stored."""


@dataclass(frozen=True, eq=False)
class CaptionedImages:
    """Every image with its alternative captions; no labels.

    Args:
        images: The images.
        captions: One or more captions an image: one from a table or an archive, one a template
            from class folders.
    """

    images: ImageSet
    captions: tuple[tuple[str, ...], ...] = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.images) != len(self.captions):
            raise ValueError(f"{len(self.images)} images, {len(self.captions)} sets of captions")

    def __len__(self) -> int:
        return len(self.captions)

    def said(self, rows: Int64[Tensor, " b"], chances: Float[Tensor, " b"]) -> list[str]:
        """One caption of each of these images, chosen by a chance in [0, 1)."""
        choices = [self.captions[row] for row in rows.tolist()]
        drawn = zip(choices, chances.tolist(), strict=True)
        return [some[int(chance * len(some))] for some, chance in drawn]


def pairs_kind(path: Path) -> PairsKind:
    """How the pairs at ``path`` are stored, by suffix (a table, an archive) or by what is in it.

    Raises:
        DataError: It holds no pairs, or could be read in two ways.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if not path.is_dir():
        if suffixes[-1:] in ([".csv"], [".tsv"]):
            return "csv"
        if suffixes[-1:] in ([".tar"], [".tgz"]) or ".tar" in suffixes[-2:]:
            return "webdataset"
        if not path.exists():
            raise DataError(f"{printable(path)} does not exist")
        raise DataError(f"{printable(path)} is no table (.csv, .tsv), tar archive or folder")
    try:
        visible = [each for each in path.iterdir() if not each.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{printable(path)} cannot be listed: {error.strerror}") from error
    tars = any(each.suffix == ".tar" for each in visible)
    folders = any(each.is_dir() for each in visible)
    if tars and folders:
        raise DataError(
            f"{printable(path)} has both tar archives and folders: say how to read it (webdataset "
            "or class-folders)"
        )
    if not tars and not folders:
        raise DataError(
            f"{printable(path)} has neither tar archives nor class folders: no captions for images"
        )
    return "webdataset" if tars else "class-folders"


def read_pairs(
    path: Path,
    size: int | None,
    *,
    kind: PairsKind | Literal["auto"] = "auto",
    img_key: str = "filepath",
    caption_key: str = "title",
    separator: str | None = None,
    templates: Sequence[str] = SIMPLE_TEMPLATES,
    limit: int | None = None,
    seed: int = 0,
    max_bad_fraction: float = 0.01,
    memory_limit: int = MEMORY_LIMIT,
    exclude: Collection[Path] = (),
    listener: Listener = silent,
) -> CaptionedImages:
    """Reads images with captions, in the order in which they are stored.

    - ``csv``: one row a pair (see `Table`); an image with five captions may stand in five rows.
    - ``webdataset``: a tar archive, a folder of them, or ``shard-{0000..0031}.tar`` (see `Shards`).
    - ``class-folders``: every image of a folder has the templates with the folder's name as its
      captions. Underscores of the name become spaces, as CLIP's prompts spell the names of such
      data sets; hyphens stay, since they belong to words (T-shirt).

    Every image is decoded once at the start, as in `read_images`.

    Args:
        path: Where they are.
        size: Height and width that all images are brought to, or None for the images' own.
        kind: How they are stored; ``auto`` decides as `pairs_kind`.
        img_key: Name of the table's column of image paths.
        caption_key: Name of its column of captions.
        separator: What separates its columns; None finds out.
        templates: Of class folders, each with one ``{}``.
        limit: Draw so many pairs at random, a function of the seed alone; a smaller limit gives a
            part of a larger one's. Hardly more than these are decoded.
        seed: Of that draw.
        max_bad_fraction: Largest share of unreadable pairs, from 0 to 1, of those looked at.
        memory_limit: Most bytes of pixels kept in memory.
        exclude: Folders inside a class folder that are left out.
        listener: Told about every chunk of images.

    Raises:
        ConfigError: A limit, size, separator or template makes no sense.
        DataError: There are no pairs, fewer than ``limit``, too many unreadable ones, or images of
            different sizes where none was asked for.
        UnsafeInputError: A path or the name of a member leaves its folder.
    """
    pool = _pool(path, kind, (img_key, caption_key, separator), templates, exclude)
    if len(pool) == 0:
        raise DataError(f"{printable(path)} has no images with captions")
    images, captions = scan(path, pool, size, limit, seed, max_bad_fraction, memory_limit, listener)
    return CaptionedImages(images, captions)


def _in_class_folders(folder: Path, templates: Sequence[str], exclude: Collection[Path]) -> Listed:
    """Every image of a folder of class folders, with prompts of its folder's name.

    Raises:
        ConfigError: A template has not exactly one ``{}``, or there is none.
        DataError: There are no class folders, a link or image among them, or one whose name is no
            text.
    """
    names = class_folders(folder)
    prompts = class_prompts([_spoken(folder / name) for name in names], templates)
    items: list[Pair | Unreadable] = []
    for name, captions in zip(names, prompts, strict=True):
        listing = list_images(folder / name, exclude=exclude)
        items += (Pair(file, captions) for file in listing.files)
        items += listing.unreadable
    return Listed(items)


def _spoken(folder: Path) -> str:
    try:
        return caption(folder.name.replace("_", " "))
    except ValueError as error:
        raise DataError(f"class folder {printable(folder)}: the name {error}: rename it") from None


def _pool(
    path: Path,
    kind: PairsKind | Literal["auto"],
    table: tuple[str, str, str | None],
    templates: Sequence[str],
    exclude: Collection[Path],
) -> Pool:
    match pairs_kind(path) if kind == "auto" else kind:
        case "csv":
            return Table(path, *table)
        case "webdataset":
            return Shards(find_shards(path))
        case "class-folders":
            return _in_class_folders(path, templates, exclude)
