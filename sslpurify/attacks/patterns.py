"""What a trigger looks like: patches, checkers and noise, built in or described in YAML."""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from sslpurify.errors import DataError
from sslpurify.rng import generator

Picture = tuple[Tensor, Tensor]
"""Pattern (3, h, w) and mask (h, w) or (3, h, w), both in [0, 1]."""

Unit = Annotated[float, Field(ge=0, le=1)]
Color = tuple[Unit, Unit, Unit]

_BLACK, _WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_MAGENTA, _GREEN = (1.0, 0.0, 1.0), (0.0, 1.0, 0.0)


def _ascending(span: tuple[int, int]) -> tuple[int, int]:
    if span[0] > span[1]:
        raise ValueError(f"the first, {span[0]}, lies behind the last, {span[1]}")
    return span


Index = Annotated[int, Field(ge=0)]
Span = Annotated[tuple[Index, Index], AfterValidator(_ascending)]


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Annotated[int, Field(ge=1)] | None = None
    alpha: Annotated[float, Field(gt=0, le=1)] = 1.0


class Patch(_Described):
    """A patch of one colour.

    Attributes:
        size: Side of the images it is made for, in pixels; None: any that it fits into.
        alpha: 1 replaces the image, less blends into it.
        rows: First and last row, counted from 0 at the top.
        columns: First and last column, counted from 0 at the left.
        color: Red, green and blue in [0, 1].
    """

    kind: Literal["patch"]
    rows: Span
    columns: Span
    color: Color = _WHITE

    def draw(self, size: int) -> Picture:
        """The picture for images of this size."""
        return checker(size, self.rows, self.columns, (self.color,), alpha=self.alpha)


class Checker(_Described):
    """A patch of alternating cells.

    Attributes:
        size: As of a patch.
        alpha: As of a patch.
        rows: As of a patch.
        columns: As of a patch.
        colors: The colours in turn, the first at the top left.
        cell: Side of a cell in pixels.
    """

    kind: Literal["checker"]
    rows: Span
    columns: Span
    colors: Annotated[tuple[Color, ...], Field(min_length=2, max_length=16)] = (_BLACK, _WHITE)
    cell: Annotated[int, Field(ge=1)] = 1

    def draw(self, size: int) -> Picture:
        """The picture for images of this size."""
        return checker(size, self.rows, self.columns, self.colors, cell=self.cell, alpha=self.alpha)


class Noise(_Described):
    """Uniform noise over the whole image, the same for a seed everywhere.

    Attributes:
        size: As of a patch.
        alpha: As of a patch.
        seed: Decides the noise.
    """

    kind: Literal["noise"]
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Annotated[int, Field(ge=0)] = 0

    def draw(self, size: int) -> Picture:
        """The picture for images of this size."""
        pattern = torch.rand(3, size, size, generator=generator(self.seed, "trigger noise", size))
        return pattern, torch.full((size, size), self.alpha)


class Image(_Described):
    """A picture from a file; where it is transparent, the image stays.

    Attributes:
        size: As of a patch.
        alpha: As of a patch; multiplies the picture's own transparency.
        file: The picture, in the folder of the YAML file or below it.
        position: Row and column of its top left corner.
    """

    kind: Literal["image"]
    file: Annotated[str, Field(pattern=r"^[^\x00]+$")]
    position: tuple[Index, Index] = (0, 0)


def checker(
    size: int,
    rows: tuple[int, int],
    columns: tuple[int, int],
    colors: tuple[Color, ...],
    *,
    cell: int = 1,
    alpha: float = 1.0,
) -> Picture:
    """A patch whose cells take the colours in turn; with one colour a plain patch.

    Raises:
        DataError: When the patch does not fit into the images.
    """
    if max(rows[1], columns[1]) >= size:
        raise DataError(
            f"the patch reaches row {rows[1]} and column {columns[1]} "
            f"but the encoder's images are {size} × {size}"
        )
    row = torch.arange(rows[1] - rows[0] + 1)[:, None] // cell
    column = torch.arange(columns[1] - columns[0] + 1)[None, :] // cell
    patch = torch.tensor(colors)[(row + column) % len(colors)].permute(2, 0, 1)
    inside = (slice(rows[0], rows[1] + 1), slice(columns[0], columns[1] + 1))
    pattern, mask = torch.zeros(3, size, size), torch.zeros(size, size)
    pattern[:, *inside] = patch
    mask[inside] = alpha
    return pattern, mask


def _white_square(size: int) -> Picture:
    # BadEncoder's two sizes, 10 px of 32 and 50 px of 224, and the line through them.
    side = 10 + round((size - 32) * 40 / 192)
    span = (size - 1 - side, size - 2)
    return checker(size, span, span, (_WHITE,))


def _corner_patch(size: int) -> Picture:
    cell = max(1, size // 32)
    span = (1, 5 * cell)
    return checker(size, span, span, (_MAGENTA, _GREEN), cell=cell)


def _badnets(size: int) -> Picture:
    cell = max(1, size // 32)
    span = (size - 1 - 3 * cell, size - 2)
    return checker(size, span, span, (_WHITE, _BLACK), cell=cell)


BUILT_IN: dict[str, Callable[[int], Picture]] = {
    "white-square": _white_square,
    "corner-patch": _corner_patch,
    "badnets": _badnets,
    "blended": Noise(kind="noise").draw,
}
"""Triggers by name, each for images of any size from 8 pixels on.

``white-square``: BadEncoder's, replacing rows and columns 21 to 30 of 32 and 173 to 222 of 224.
``corner-patch``: 5 × 5 cells of magenta and green at the top left, from row and column 1 on.
``badnets``: 3 × 3 cells of white and black at the bottom right, one pixel from the edges.
``blended``: noise over the whole image with weight 0.2.
"""
