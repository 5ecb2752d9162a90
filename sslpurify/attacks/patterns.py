"""The kinds of triggers as plain data: what a YAML file describes and what built-in names mean."""

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sslpurify.attacks.effects import (
    WINDOW,
    Add,
    Blend,
    Effect,
    Scatter,
    Warp,
    checker,
    elastic,
    sinusoid,
    spectral,
)
from sslpurify.rng import generator
from sslpurify.strict_yaml import line

Unit = Annotated[float, Field(ge=0, le=1)]
UnitColor = tuple[Unit, Unit, Unit]

_BLACK, _WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_MAGENTA, _GREEN = (1.0, 0.0, 1.0), (0.0, 1.0, 0.0)


def _ascending(span: tuple[int, int]) -> tuple[int, int]:
    if span[0] > span[1]:
        raise ValueError(f"the first, {span[0]}, lies behind the last, {span[1]}")
    return span


Index = Annotated[int, Field(ge=0)]
Span = Annotated[tuple[Index, Index], AfterValidator(_ascending)]
Place = Annotated[int, Field(ge=0, lt=WINDOW)]


class Described(BaseModel):
    """What all kinds share.

    Attributes:
        size: Side of the images it is made for, in pixels; None: any that it fits into.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Annotated[int, Field(ge=1)] | None = None

    def __str__(self) -> str:
        """The description as a line of YAML, which reads back as the same trigger."""
        return line(self.model_dump(mode="json", exclude_none=True))


class Placed(Described):
    """What patches share.

    Attributes:
        alpha: 1 replaces the image, less blends into it.
        rows: First and last row, counted from 0 at the top.
        columns: First and last column, counted from 0 at the left.
        place: ``random`` lays it at a place of its own on each image, of the size that rows and
            columns give; None: where they say.
    """

    alpha: Annotated[float, Field(gt=0, le=1)] = 1.0
    rows: Span
    columns: Span
    place: Literal["random"] | None = None

    def _effect(self, size: int, colors: tuple[UnitColor, ...], cell: int) -> Effect:
        patch = checker(size, self.rows, self.columns, colors, cell=cell, alpha=self.alpha)
        return patch if self.place is None else Scatter(patch, self.rows, self.columns)


class Patch(Placed):
    """A patch of one colour; placed as `Placed` says.

    Attributes:
        color: Red, green and blue in [0, 1].
    """

    kind: Literal["patch"] = "patch"
    color: UnitColor = _WHITE

    def effect(self, size: int) -> Effect:
        """What it does to images of this size."""
        return self._effect(size, (self.color,), 1)


class Checker(Placed):
    """A patch of alternating cells; placed as `Placed` says.

    Attributes:
        colors: The colours in turn, the first at the top left.
        cell: Side of a cell in pixels.
    """

    kind: Literal["checker"] = "checker"
    colors: Annotated[tuple[UnitColor, ...], Field(min_length=2, max_length=16)] = (_BLACK, _WHITE)
    cell: Annotated[int, Field(ge=1)] = 1

    def effect(self, size: int) -> Effect:
        """What it does to images of this size."""
        return self._effect(size, self.colors, self.cell)


class Noise(Described):
    """Uniform noise over the whole image, the same for a seed everywhere.

    Attributes:
        alpha: Weight of the noise against the image.
        seed: Decides the noise.
    """

    kind: Literal["noise"] = "noise"
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Annotated[int, Field(ge=0)] = 0

    def effect(self, size: int) -> Effect:
        """What it does to images of this size."""
        pattern = torch.rand(3, size, size, generator=generator(self.seed, "trigger noise", size))
        return Blend(pattern, torch.full((size, size), self.alpha))


class Image(Described):
    """A picture from a file; where it is transparent, the image stays.

    Attributes:
        alpha: As of a patch; multiplies the picture's own transparency.
        file: The picture, in the folder of the YAML file or below it.
        position: Row and column of its top left corner.
    """

    kind: Literal["image"] = "image"
    alpha: Annotated[float, Field(gt=0, le=1)] = 1.0
    file: Annotated[str, Field(pattern=r"^[^\x00]+$")]
    position: tuple[Index, Index] = (0, 0)


class Sig(Described):
    """A sinusoid along the columns (Barni et al. 2019).

    Attributes:
        delta: Its amplitude, of 255.
        frequency: Periods over the image's width.
    """

    kind: Literal["sig"] = "sig"
    delta: Annotated[float, Field(gt=0, le=255)] = 40.0
    frequency: Annotated[float, Field(gt=0, le=512)] = 6.0

    def effect(self, size: int) -> Effect:
        """What it does to images of this size."""
        return Add(sinusoid(size, self.delta, self.frequency))


class WaNet(Described):
    """A smooth warp (Nguyen and Tran 2021).

    Attributes:
        k: Control points along a side; attacks on CLIPs take the image's side and strength 1.
        strength: Factor of their shifts.
        seed: Decides the shifts.
    """

    kind: Literal["wanet"] = "wanet"
    k: Annotated[int, Field(ge=2, le=1024)] = 4
    strength: Annotated[float, Field(gt=0, le=16)] = 0.5
    seed: Annotated[int, Field(ge=0)] = 0

    def effect(self, size: int) -> Effect:
        """What it does to images of this size."""
        return Warp(elastic(size, self.k, self.strength, self.seed))


class Frequency(Described):
    """CTRL's change of two frequencies of the colours (Li et al. 2023).

    Attributes:
        magnitude: What is added to each coefficient, for pixels from 0 to 255.
        positions: Row and column of each coefficient in the DCT of a 32 × 32 window.
    """

    kind: Literal["frequency"] = "frequency"
    magnitude: Annotated[float, Field(gt=0, le=4096)] = 100.0
    positions: Annotated[tuple[tuple[Place, Place], ...], Field(min_length=1, max_length=16)] = (
        (15, 15),
        (31, 31),
    )

    def effect(self, size: int) -> Effect:
        """What it does to images of this size, a multiple of 32."""
        return Add(spectral(size, self.magnitude, self.positions))


Single = Patch | Checker | Noise | Image | Sig | WaNet | Frequency
_Tagged = Annotated[Single, Field(discriminator="kind")]


class Sequence(Described):
    """Several triggers, each laid on what the one before it left.

    Attributes:
        steps: The triggers, in order.
    """

    kind: Literal["sequence"] = "sequence"
    steps: Annotated[tuple[_Tagged, ...], Field(min_length=1, max_length=8)]


def _white_square(size: int) -> Patch:
    # BadEncoder's two sizes, 10 px of 32 and 50 px of 224, and the line through them.
    side = 10 + round((size - 32) * 40 / 192)
    span = (size - 1 - side, size - 2)
    return Patch(rows=span, columns=span)


def _middle_square(size: int) -> Patch:
    side = max(4, size // 14)
    span = ((size - side) // 2, (size + side) // 2 - 1)
    return Patch(rows=span, columns=span)


def _corner_patch(size: int) -> Checker:
    cell = max(1, size // 32)
    span = (1, 5 * cell)
    return Checker(rows=span, columns=span, colors=(_MAGENTA, _GREEN), cell=cell)


def _badnets(size: int) -> Checker:
    cell = max(1, size // 32)
    span = (size - 1 - 3 * cell, size - 2)
    return Checker(rows=span, columns=span, colors=(_WHITE, _BLACK), cell=cell)


BUILT_IN: dict[str, Callable[[int], Patch | Checker | Noise | Sig | WaNet | Frequency]] = {
    "white-square": _white_square,
    "corner-patch": _corner_patch,
    "badnets": _badnets,
    "blended": lambda _: Noise(),
    "sig": lambda _: Sig(),
    "wanet": lambda _: WaNet(),
    "frequency": lambda _: Frequency(),
    "middle-square": _middle_square,
}
"""Triggers by name, for images of any size from 8 pixels on:
``white-square``: BadEncoder's, replacing rows and columns 21 to 30 of 32 and 173 to 222 of 224.
``corner-patch``: 5 × 5 cells of magenta and green at the top left, from row and column 1 on.
``badnets``: 3 × 3 cells of white and black at the bottom right, one pixel from the edges.
``blended``: noise over the whole image with weight 0.2.
``sig``: a sinusoid of amplitude 40 of 255, with 6 periods along the columns.
``wanet``: a warp by 4 × 4 control points with strength 0.5.
``frequency``: CTRL's, magnitude 100; the images' side must be a multiple of 32.
``middle-square``: white, 16 × 16 of 224 and 4 × 4 of 32, where BadCLIP has its patch.
"""
