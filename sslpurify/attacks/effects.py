"""What a trigger does to images: blends a pattern in, adds one, warps them, or several in turn.

An effect is a function on images (n, 3, h, w) in [0, 1]: it gives as many new ones of the same
shape, range, type and device, and the same ones every time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from sslpurify.errors import DataError
from sslpurify.rng import generator

Effect = Callable[[Tensor], Tensor]
"""Images (n, 3, h, w) in [0, 1] -> images alike."""

WINDOW = 32
"""Side of the squares, in pixels, in which CTRL takes frequencies."""

Color = tuple[float, float, float]
"""Red, green and blue in [0, 1]."""


@dataclass(frozen=True, eq=False)
class Blend:
    """Lays a pattern on images: image · (1 - mask) + pattern · mask.

    Args:
        pattern: What is laid on, in [0, 1].
        mask: How much of it, in [0, 1]: 0 keeps the image, 1 replaces it.

    Raises:
        DataError: When values lie outside [0, 1].
    """

    pattern: Float[Tensor, "3 h w"]
    mask: Float[Tensor, "h w"] | Float[Tensor, "3 h w"]

    def __post_init__(self) -> None:
        for what, values in (("pattern", self.pattern), ("mask", self.mask)):
            if not ((values >= 0) & (values <= 1)).all():
                raise DataError(f"a trigger's {what} has values outside [0, 1]")

    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """New images with the pattern on them."""
        return _laid(images, self.pattern.to(images), self.mask.to(images))


def _laid(images: Tensor, pattern: Tensor, mask: Tensor) -> Tensor:
    return (images * (1 - mask) + pattern * mask).clamp_(0, 1)


@dataclass(frozen=True, eq=False)
class Scatter:
    """Lays a patch at a place of its own on each image, always the same for the same 8-bit pixels.

    Source: Saha et al. 2022 (SSL-Backdoor, arXiv 2105.10123), section 4.

    Args:
        patch: Lies in these rows and columns, with one mask for all channels.
        rows: First and last.
        columns: First and last.
    """

    patch: Blend
    rows: tuple[int, int]
    columns: tuple[int, int]

    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """New images with the patch on them."""
        height, width = images.shape[2:]
        down, right = _hashes(images).unbind(1)
        row = _moved(down, height, self.rows)[:, :, None]
        column = _moved(right, width, self.columns)[:, None, :]
        pattern = self.patch.pattern.to(images)[:, row, column].transpose(0, 1)
        mask = self.patch.mask.to(images)[row, column].unsqueeze(1)
        return _laid(images, pattern, mask)


def _hashes(images: Float[Tensor, "n 3 h w"]) -> Int64[Tensor, "n 2"]:
    """Two numbers from 0 for each image, of about a thousand of its pixels in 8 bits."""
    step = math.ceil(max(images.shape[2:]) / 32)
    pixels = (images[:, :, ::step, ::step] * 255).round().double().flatten(1)
    weights = torch.randint(2**20, (pixels.shape[1], 2), generator=generator(0, "trigger place"))
    return (pixels @ weights.to(pixels)).long()  # exact: every sum is below 2 ** 53


def _moved(drawn: Int64[Tensor, " n"], side: int, span: tuple[int, int]) -> Int64[Tensor, "n side"]:
    """Which line of the patch's picture each line of an image shows when the patch is moved."""
    start = drawn % (side - span[1] + span[0])
    return (torch.arange(side, device=drawn.device) - start[:, None] + span[0]) % side


@dataclass(frozen=True, eq=False)
class Add:
    """Adds a pattern to images: image + pattern, clipped.

    Args:
        pattern: What is added, in the units of images in [0, 1].
    """

    pattern: Float[Tensor, "3 h w"]

    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """New images with the pattern in them."""
        return (images + self.pattern.to(images)).clamp_(0, 1)


@dataclass(frozen=True, eq=False)
class Warp:
    """Moves pixels: each place shows what is at another, bilinearly interpolated.

    Args:
        grid: Column and row that each place shows, from -1 at the first to 1 at the last.
    """

    grid: Float[Tensor, "h w 2"]

    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """New, warped images."""
        exact = images.to(torch.promote_types(images.dtype, torch.float32))
        grid = self.grid.to(exact).expand(len(images), -1, -1, -1)
        return F.grid_sample(exact, grid, align_corners=True).clamp_(0, 1).to(images.dtype)


@dataclass(frozen=True, eq=False)
class Chain:
    """Several effects, each on what the one before it left."""

    effects: Sequence[Effect]

    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """New images with all of them."""
        return reduce(lambda seen, effect: effect(seen), self.effects, images)


def checker(
    size: int,
    rows: tuple[int, int],
    columns: tuple[int, int],
    colors: tuple[Color, ...],
    *,
    cell: int = 1,
    alpha: float = 1.0,
) -> Blend:
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
    return Blend(pattern, mask)


def sinusoid(size: int, delta: float, frequency: float) -> Float[Tensor, "3 h w"]:
    """SIG's pattern: Δ sin(2π j f / m) in column j of m, counted from 1.

    Source: Barni et al. 2019 (arXiv 1902.11237), section 3.

    Args:
        size: m, the side of the images in pixels.
        delta: Δ, the amplitude, of 255.
        frequency: f, periods over the image's width.
    """
    column = torch.arange(1, size + 1, dtype=torch.float64)
    wave = delta / 255 * torch.sin(2 * math.pi * frequency * column / size)
    return wave.float().expand(3, size, size).contiguous()


def spectral(
    size: int, magnitude: float, positions: Sequence[tuple[int, int]]
) -> Float[Tensor, "3 h w"]:
    """CTRL's pattern: a change of some frequencies of the colour channels, seen as an image.

    CTRL turns RGB · 255 to YUV, takes the orthonormal 2-D DCT of each 32 × 32 window, adds a
    magnitude to some coefficients of U and V, and goes back. All of it is linear, so it adds one
    and the same pattern to every image.

    Source: Li et al. 2023 (CTRL, arXiv 2210.07346), section 4.2.

    Args:
        size: Side of the images in pixels, a multiple of 32.
        magnitude: What is added to each coefficient.
        positions: The coefficients, (row, column) from 0 to 31.

    Raises:
        DataError: The size is no multiple of 32.
    """
    if size % WINDOW:
        raise DataError(
            f"frequencies are taken in windows of {WINDOW} × {WINDOW}, "
            f"which do not fill the encoder's images of {size} × {size}"
        )
    waves = dct_matrix(WINDOW)
    window = torch.stack([torch.outer(waves[row], waves[column]) for row, column in positions])
    chroma = magnitude / 255 * window.sum(0).tile(size // WINDOW, size // WINDOW)
    yuv = torch.stack([torch.zeros_like(chroma), chroma, chroma])
    return torch.einsum("cd,dhw->chw", torch.linalg.inv(yuv_matrix()), yuv).float()


def dct_matrix(size: int) -> Float64[Tensor, "n n"]:
    """The orthonormal DCT-II: row k is the wave of number k, and matrix @ signal its transform."""
    place = torch.arange(size, dtype=torch.float64)
    waves = torch.cos(math.pi / size * torch.outer(place, place + 0.5)) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves


def yuv_matrix() -> Float64[Tensor, "3 3"]:
    """From RGB to YUV: Y of ITU-R BT.601, U = 0.492 (B - Y), V = 0.877 (R - Y)."""
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    red, _, blue = torch.eye(3, dtype=torch.float64)
    return torch.stack([luma, 0.492 * (blue - luma), 0.877 * (red - luma)])


def elastic(size: int, k: int, strength: float, seed: int) -> Float[Tensor, "h w 2"]:
    """WaNet's grid: a smooth field of small shifts, the same for a seed everywhere.

    Random shifts at k × k control points, of mean size 1, are enlarged bicubically; each pixel then
    shows what lies ``strength`` / 2 pixels away on average.

    Source: Nguyen and Tran 2021 (WaNet, arXiv 2102.10369), section 3.2.

    Args:
        size: Side of the images in pixels.
        k: Control points along a side.
        strength: Factor of the shifts.
        seed: Decides the shifts.
    """
    shifts = torch.rand(1, 2, k, k, generator=generator(seed, "trigger warp", k)) * 2 - 1
    shifts /= shifts.abs().mean()
    field = F.interpolate(shifts, size=size, mode="bicubic", align_corners=True)[0]
    line = torch.linspace(-1, 1, size)
    still = torch.stack(torch.meshgrid(line, line, indexing="xy"))
    return (still + strength * field / size).clamp(-1, 1).permute(1, 2, 0).contiguous()
