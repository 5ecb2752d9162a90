"""A report as plain data, and the one self-contained HTML file that shows it."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_HERE = Path(__file__).parent
_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
_LAYOUT = "\n\t\u00a0"


@dataclass(frozen=True)
class Cell:
    """A value and what belongs to it in small print."""

    text: str
    note: str = ""


NONE = Cell("–")
"""Where a table has no value."""


@dataclass(frozen=True)
class Table:
    """Rows under heads; the first cell of a row is its head.

    Args:
        caption: Says what the numbers are.
        heads: As many as every row has cells.
        rows: The cells.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A picture.

    Args:
        source: A ``data:`` URI.
        alt: What it shows, for those who do not see it.
        caption: What to make of it.
    """

    source: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Strip:
    """Small pictures in a row."""

    title: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Gallery:
    """Strips that belong together."""

    title: str
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class Folded:
    """What opens on demand."""

    title: str
    tables: tuple[Table, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """One part of the page; what is empty does not show.

    Args:
        anchor: Its address within the page: letters and hyphens.
        title: Its heading.
        paragraphs: Text.
        tiles: The few numbers to see first: value, with what it is as the note.
        tables: Tables.
        figures: Drawings, beside each other where there is room.
        pixels: Pictures made of few pixels, drawn large.
        galleries: Rows of small pictures.
        items: A list of sentences.
        folded: What opens on demand.
    """

    anchor: str
    title: str
    paragraphs: tuple[str, ...] = ()
    tiles: tuple[Cell, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    pixels: tuple[Figure, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    items: tuple[str, ...] = ()
    folded: tuple[Folded, ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]


def data_uri(name: str, data: bytes) -> str:
    """A picture as part of the page; its kind is told from the name's suffix."""
    return f"data:{_TYPES[Path(name).suffix]};base64,{base64.b64encode(data).decode('ascii')}"


def render(page: Page) -> str:
    """The page as HTML that refers to nothing outside itself and runs nothing.

    Every text is escaped: names of files, classes and tensors are those of strangers. The policy in
    the page's head lets a browser load embedded pictures and this page's own style, no more.
    """
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    context: Mapping[str, Any] = {
        "page": page,
        "style": Markup(style),  # noqa: S704 - our own file
        "style_digest": f"sha256-{digest}",
    }
    return environment.get_template("page.html.j2").render(context)


def _shown(value: object) -> object:
    """Text without what is not printable, which could reorder or hide what stands beside it."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "".join(c if c.isprintable() or c in _LAYOUT else ascii(c)[1:-1] for c in value)
