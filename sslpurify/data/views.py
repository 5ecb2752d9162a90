"""SimCLR's random views, made for a whole batch at once.

A view is drawn first and rendered second: what is drawn is a handful of numbers for every image,
taken from the generator on the CPU, so it is the same on every device.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from sslpurify.data.colour import blur, grey, jitter_, reach

Probability = Annotated[float, Field(ge=0, le=1)]

_ATTEMPTS = 10  # torchvision's RandomResizedCrop tries as often before it takes the centre


class ViewSettings(BaseModel):
    """How views differ from their image; the defaults are lightly's advice for small images.

    Source: Chen et al. 2020 (SimCLR, arXiv 2002.05709), appendices A and B.9: half the colour
    strength and no blur for 32 × 32 images.

    Attributes:
        min_scale: Smallest share of the image's area that a crop takes, in (0, 1].
        max_scale: Largest share, from ``min_scale`` to 1.
        min_ratio: Smallest width / height of a crop, above 0.
        max_ratio: Largest, at least ``min_ratio``.
        flip_probability: Share of views that are mirrored left to right.
        jitter_probability: Share of views whose colours are changed.
        brightness: Factor drawn from [max(0, 1 - brightness), 1 + brightness].
        contrast: Factor, likewise.
        saturation: Factor, likewise.
        hue: Turn drawn from [-hue, hue] of a full circle, at most 0.5.
        grey_probability: Share of views without colour.
        blur_probability: Share of views that are blurred.
        min_sigma: Smallest standard deviation of the blur, in pixels, above 0.
        max_sigma: Largest, at least ``min_sigma``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_scale: Annotated[float, Field(gt=0, le=1)] = 0.2
    max_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    min_ratio: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3 / 4
    max_ratio: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 4 / 3
    flip_probability: Probability = 0.5
    jitter_probability: Probability = 0.8
    brightness: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.4
    contrast: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.4
    saturation: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    grey_probability: Probability = 0.2
    blur_probability: Probability = 0.0
    min_sigma: Annotated[float, Field(gt=0, le=32)] = 0.1
    max_sigma: Annotated[float, Field(gt=0, le=32)] = 2.0

    @model_validator(mode="after")
    def _ordered(self) -> "ViewSettings":
        for name in ("scale", "ratio", "sigma"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low > high:
                raise ValueError(f"min_{name} {low} is above max_{name} {high}")
        return self


@dataclass(frozen=True, eq=False)
class Draws:
    """What was drawn for one view of every image of a batch.

    Args:
        box: Crop as top, left, height and width in whole pixels.
        flip: Which views are mirrored.
        jitter: Which views have their colours changed.
        order: In which order: a permutation of brightness, contrast, saturation and hue.
        amounts: By how much, see `sslpurify.data.colour.jitter_`.
        grey: Which views lose their colour.
        blur: Which views are blurred.
        sigma: By how much, in pixels.
        radius: How far the blur looks, in pixels: one number for the whole batch.
    """

    box: Int64[Tensor, "n 4"]
    flip: Bool[Tensor, " n"]
    jitter: Bool[Tensor, " n"]
    order: Int64[Tensor, "n 4"]
    amounts: Float[Tensor, "n 4"]
    grey: Bool[Tensor, " n"]
    blur: Bool[Tensor, " n"]
    sigma: Float[Tensor, " n"]
    radius: int

    def rows(self, span: slice) -> "Draws":
        """Those of some of the images: their views are the same as in the whole batch."""
        drawn = ((field.name, getattr(self, field.name)) for field in fields(self))
        return replace(self, **{name: v[span] for name, v in drawn if isinstance(v, Tensor)})


def draw(
    settings: ViewSettings, count: int, height: int, width: int, generator: torch.Generator
) -> Draws:
    """Draws one view for each of ``count`` images of ``height`` × ``width`` pixels.

    Every image uses one row of one tensor of uniform numbers, whatever the settings, so the first
    images of a larger batch are drawn the same, and changing one setting changes nothing else.
    """
    columns = [2 * _ATTEMPTS, 2, 4, 4, 4, 1]
    uniform = torch.rand(count, sum(columns), generator=generator, dtype=torch.float64)
    shape, place, chance, order, amounts, sigma = uniform.split(columns, dim=1)
    spread = torch.tensor([settings.brightness, settings.contrast, settings.saturation])
    low = torch.cat([(1 - spread).clamp_min(0), torch.tensor([-settings.hue])])
    high = torch.cat([1 + spread, torch.tensor([settings.hue])])
    blurred = chance[:, 3] < settings.blur_probability
    width_of_blur = settings.min_sigma + (settings.max_sigma - settings.min_sigma) * sigma[:, 0]
    return Draws(
        box=_draw_boxes(settings, height, width, shape, place),
        flip=chance[:, 0] < settings.flip_probability,
        jitter=chance[:, 1] < settings.jitter_probability,
        order=order.argsort(1),
        amounts=low + (high - low) * amounts,
        grey=chance[:, 2] < settings.grey_probability,
        blur=blurred,
        sigma=width_of_blur,
        radius=reach(width_of_blur[blurred]) if blurred.any() else 0,
    )


def render(images: Float32[Tensor, "n 3 h w"], draws: Draws) -> Float32[Tensor, "n 3 h w"]:
    """Makes the views that were drawn, on the images' device: crop, flip, colours, grey, blur."""
    views = _crop(images.detach(), draws.box, draws.flip)
    rows = draws.jitter.nonzero()[:, 0]
    jitter_(views, rows, draws.order[rows], draws.amounts[rows])
    if len(rows := draws.grey.nonzero()[:, 0]):
        index = rows.to(views.device)
        views[index] = grey(views[index]).expand(-1, 3, -1, -1)
    if len(rows := draws.blur.nonzero()[:, 0]):
        index = rows.to(views.device)
        views[index] = blur(views[index], draws.sigma[rows], draws.radius)
    return views.clamp_(0, 1)


def augment(
    images: Float32[Tensor, "n 3 h w"], settings: ViewSettings, generator: torch.Generator
) -> Float32[Tensor, "n 3 h w"]:
    """One random view of every image, each drawn on its own.

    Crops are enlarged to the image's own size, where bilinear interpolation with and without
    antialiasing are the same: this is torchvision's default without its rounding to 8 bits.

    Args:
        images: Values in [0, 1], on any device.
        settings: How views differ from their image.
        generator: On the CPU; the only source of randomness.

    Returns:
        New contiguous images in [0, 1] of the same shape, on the same device; no gradient flows
        back through them.
    """
    height, width = images.shape[2:]
    return render(images, draw(settings, len(images), height, width, generator))


def _draw_boxes(
    settings: ViewSettings, height: int, width: int, shape: Tensor, place: Tensor
) -> Tensor:
    """Crops as torchvision's RandomResizedCrop draws them: the first of ten that fits."""
    share, log_ratio = shape.view(-1, 2, _ATTEMPTS).unbind(1)
    scale = settings.min_scale + (settings.max_scale - settings.min_scale) * share
    area = height * width * scale
    low, high = math.log(settings.min_ratio), math.log(settings.max_ratio)
    ratio = torch.exp(low + (high - low) * log_ratio)
    h, w = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (h >= 1) & (h <= height) & (w >= 1) & (w <= width)
    # After ten misses: the largest centred crop whose ratio is allowed.
    last_h = max(1, min(height, round(width / settings.min_ratio)))
    last_w = max(1, min(width, round(height * settings.max_ratio)))
    last = torch.tensor([[last_h, last_w]], dtype=h.dtype).expand(len(h), -1)
    first = fits.logical_not().cumprod(1).sum(1, keepdim=True)
    h = torch.cat([h, last[:, :1]], 1).gather(1, first)[:, 0]
    w = torch.cat([w, last[:, 1:]], 1).gather(1, first)[:, 0]
    missed = first[:, 0] == _ATTEMPTS
    room = torch.stack([height - h, width - w], 1)
    corner = torch.where(missed[:, None], room / 2, place * (room + 1)).floor()
    return torch.cat([corner, torch.stack([h, w], 1)], 1).long()


def _crop(images: Tensor, box: Tensor, flip: Tensor) -> Tensor:
    """Crops, flips and enlarges; a crop's border pixels are repeated, not its neighbours seen."""
    height, width = images.shape[2:]
    top, left, h, w = box.to(images).unsqueeze(2).unbind(1)
    rows = (torch.arange(height, device=images.device) + 0.5) / height
    columns = ((torch.arange(width, device=images.device) + 0.5) / width).expand(len(box), -1)
    columns = torch.where(flip.to(images.device)[:, None], columns.flip(1), columns)
    y = top + torch.clamp(rows * h - 0.5, torch.zeros_like(h), h - 1)
    x = left + torch.clamp(columns * w - 0.5, torch.zeros_like(w), w - 1)
    grid = images.new_empty(len(box), height, width, 2)
    grid[..., 0] = ((2 * x + 1) / width - 1)[:, None, :]
    grid[..., 1] = ((2 * y + 1) / height - 1)[:, :, None]
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
