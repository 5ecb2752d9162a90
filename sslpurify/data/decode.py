"""Image files, or members of archives, to pixels: the only place where images are decoded."""

import struct
from io import BytesIO

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from sslpurify.data.folder import printable
from sslpurify.data.sources import Source, opened
from sslpurify.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""The decoders a stranger's file may reach; Pillow has forty more."""

MAX_PIXELS = 89_478_485
"""Pillow's own limit, kept here as an error that no other library can lift."""

_PIECE = 2**20  # pixels converted at once

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(DataError):
    """One image cannot be used; ``source`` and ``reason`` say which and why."""

    def __init__(self, source: Source, reason: str) -> None:
        super().__init__(f"{printable(source)}: {reason}")
        self.source = source
        self.reason = reason


def image_size(source: Source) -> tuple[int, int]:
    """Width and height in pixels as the file's header states them; nothing is decoded.

    Raises:
        ImageError: as `open_image`.
    """
    return _opened(source, load=False).size


def open_image(source: Source) -> Image.Image:
    """Reads one image file whole, turned upright as its EXIF says, in the file's own mode.

    Of an animation it is the first frame. Colour profiles are ignored.

    Raises:
        ImageError: Missing, not one of `FORMATS`, damaged, truncated, or more than `MAX_PIXELS`
            (checked from the header, before anything is decoded).
    """
    return _opened(source, load=True)


def decode_image(source: Source, size: int | None = None) -> UInt8[Tensor, "3 h w"]:
    """Decodes one image file of any kind to 8-bit RGB.

    Transparent pixels are laid on white. Grey, palette and CMYK images are converted; 16-bit grey
    is scaled from [0, 65535] to [0, 255], not clipped as Pillow's ``convert`` does, and of 16-bit
    colours the decoder keeps the high byte.

    Args:
        source: The file, or the member of an archive.
        size: Height and width of the result: the largest centred square, resized by antialiased
            bicubic interpolation (the usual "resize the shorter side, then centre crop" in one
            step, so that a 1 × 80,000,000 image stays harmless). An image that has this size
            already is left as it is, bit for bit. None keeps the image's own size.

    Raises:
        ImageError: as `open_image`, and for pixels without a defined range (floating point).
    """
    image = open_image(source)
    try:
        rgb = _fit(_rgb(image), size)
    except (ValueError, OSError, MemoryError) as error:
        raise ImageError(source, _reason(error)) from error
    return torch.from_numpy(np.asarray(rgb).transpose(2, 0, 1).copy())


def encode_png(pixels: UInt8[Tensor, "3 h w"]) -> bytes:
    """An image as a file that decodes to the same pixels."""
    file = BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy()).save(file, format="PNG")
    return file.getvalue()


def _opened(source: Source, *, load: bool) -> Image.Image:
    try:
        with opened(source) as file:
            image = Image.open(file, formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(source, _too_large(image.width, image.height))
            if load:
                image.load()
                return _upright(image)
            return image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(source, f"too large: more than {MAX_PIXELS:,} pixels") from error
    # Decoders fed with hostile bytes fail in every way there is, and each means the same.
    except Exception as error:
        raise ImageError(source, _reason(error)) from error


def _too_large(width: int, height: int) -> str:
    return f"too large: {width} × {height} is more than {MAX_PIXELS:,} pixels"


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not an image of a known format ({', '.join(FORMATS)})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable(str(error)) or type(error).__name__


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation: object = image.getexif().get(0x0112)
    # EXIF that cannot be parsed turns nothing, in every viewer.
    except (SyntaxError, ValueError, struct.error):
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range the file does not define")
    if image.mode.startswith("I"):
        return _from_16_bit(image).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    # Mode "I" has 32 bits, but PNG and PPM use it for 16; anything beyond has no defined range.
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("32-bit integer pixels, whose range the file does not define")
    scaled = ((np.arange(65536) + 128) // 257).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and 0 <= transparent <= 65535:
        scaled[transparent] = 255
    grey = np.empty(values.shape, np.uint8)
    # In pieces: an index has 64 bits, and one for all pixels of a large image is a gigabyte.
    flat, out = values.reshape(-1), grey.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        out[start : start + _PIECE] = scaled[flat[start : start + _PIECE]]
    return Image.fromarray(grey)


def _fit(image: Image.Image, size: int | None) -> Image.Image:
    if size is None or image.size == (size, size):
        return image
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)
