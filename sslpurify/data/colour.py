"""Changes of colour and sharpness, each image by its own amount.

Definitions are those of torchvision's colour transforms (brightness, contrast and saturation blend
an image with black, its mean grey and its grey; hue turns the angle of HSV), batched.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)

_CACHED_PIXELS = 2**15


def grey(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Luma of ITU-R BT.601, as Pillow's mode L."""
    red, green, blue = images.unbind(1)
    return (red * 0.299).add_(green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(1)


def jitter_(
    images: Float[Tensor, "n 3 h w"],
    rows: Int64[Tensor, " m"],
    order: Int64[Tensor, "m 4"],
    amounts: Float[Tensor, "m 4"],
) -> None:
    """Changes brightness, contrast, saturation and hue in place, each image in its own order.

    Args:
        images: Values in [0, 1].
        rows: Which images are changed, each at most once. This and the rest are on the CPU.
        order: A permutation of the four for each of them.
        amounts: Factors of brightness, contrast and saturation (1 changes nothing); turns of hue
            (0 changes nothing, 1 is a full circle).
    """
    # Sorted by where hue stands in each order, hue is one slice at a time and the other three are
    # one blend for all images, instead of 24 orders times four changes.
    hue_at = order.eq(HUE).int().argmax(1)
    index = hue_at.argsort(stable=True)
    rows, order, amounts, hue_at = rows[index], order[index], amounts[index], hue_at[index]
    blends = order[order != HUE].view(-1, 3).to(images.device)
    # On a CPU, pieces that stay in its cache take half the time.
    height, width = images.shape[2:]
    piece = max(1, _CACHED_PIXELS // (height * width)) if images.is_cpu else max(1, len(rows))
    tensors = (rows.to(images.device), blends, amounts.to(images), hue_at)
    for part in zip(*(tensor.split(piece) for tensor in tensors), strict=True):
        images[part[0]] = _jittered(images[part[0]], *part[1:])


def _jittered(images: Tensor, blends: Tensor, amounts: Tensor, hue_at: Tensor) -> Tensor:
    ends = hue_at.bincount(minlength=4).cumsum(0).tolist()
    for position, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        if start < end:
            turn_hue_(images[start:end], amounts[start:end, HUE])
        if position < 3:
            kind = blends[:, position, None]
            _blend_(images, kind, amounts.gather(1, kind))
    return images


def turn_hue_(images: Float[Tensor, "n 3 h w"], turns: Float[Tensor, " n"]) -> None:
    """Turns the hue angle of HSV by ``turns`` of a circle, in place; value and chroma stay."""
    red, green, blue = images.unbind(1)
    high, low = images.amax(1), images.amin(1)
    chroma = high - low
    scale = chroma.clamp_min(1e-12).reciprocal_()  # grey pixels: differences are 0, so hue is 0
    # The place on the hue circle, 0 to 6, counted from the largest of the three. lerp by 0 or 1
    # picks exactly, and on CPUs many times faster than torch.where.
    hue = (red - green).mul_(scale).add_(4)
    hue = (blue - red).mul_(scale).add_(2).lerp_(hue, (high - green).sign_())
    hue = (green - blue).mul_(scale).lerp_(hue, (high - red).sign_())
    hue.add_((6 * turns).view(-1, 1, 1))
    for channel, opposite in ((red, 3), (green, 5), (blue, 1)):
        angle = hue - opposite
        angle.sub_((angle / 6).round_(), alpha=6).abs_()  # from 0, opposite, to 3
        share = (2 - angle).clamp_(0, 1)
        channel.copy_(high).sub_(share.mul_(chroma))


def reach(sigma: Float[Tensor, " n"]) -> int:
    """How far, in pixels, a blur by the largest of ``sigma`` (above 0) looks."""
    return math.ceil(3 * float(sigma.max()))


def blur(
    images: Float[Tensor, "n 3 h w"], sigma: Float[Tensor, " n"], radius: int | None = None
) -> Float[Tensor, "n 3 h w"]:
    """Gaussian blur by ``sigma`` pixels (above 0, on the CPU), edges repeated.

    It looks as far as ``radius`` says, or else as the largest ``sigma`` needs.
    """
    radius = reach(sigma) if radius is None else radius
    sigma = sigma.to(images)
    n, channels, height, width = images.shape
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None, None]
    flat = images.reshape(1, n * channels, height, width)
    flat = F.pad(flat, (radius, radius, 0, 0), mode="replicate")
    flat = F.conv2d(flat, kernel, groups=n * channels)
    flat = F.pad(flat, (0, 0, radius, radius), mode="replicate")
    flat = F.conv2d(flat, kernel.transpose(2, 3), groups=n * channels)
    return flat.view_as(images)


def _blend_(images: Tensor, kind: Tensor, factor: Tensor) -> None:
    """One of brightness, contrast, saturation for every image, in place."""
    factor = factor.view(-1, 1, 1, 1)
    kind = kind.view(-1, 1, 1, 1)
    light = grey(images)
    mean = light.mean((2, 3), keepdim=True)
    other = light.mul_((1 - factor) * (kind == SATURATION)).add_(
        mean * (1 - factor) * (kind == CONTRAST)
    )
    images.mul_(factor).add_(other).clamp_(0, 1)
