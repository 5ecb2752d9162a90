"""Images as small PNG files."""

from io import BytesIO

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

_LARGEST = 128
"""Pixels a side in a report, where pictures stand five in a row."""


def png(image: Float[Tensor, "3 h w"]) -> bytes:
    """An image in [0, 1] as a PNG, made smaller where it is larger than 128 pixels."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    picture = Image.fromarray(pixels.numpy())
    picture.thumbnail((_LARGEST, _LARGEST))
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
