"""Triggers: functions on images in [0, 1], read from files or by name."""

import hashlib
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sslpurify.attacks.described import read_described, read_description, read_picture
from sslpurify.attacks.effects import Blend, Effect
from sslpurify.attacks.npz import read_array
from sslpurify.attacks.patterns import BUILT_IN
from sslpurify.data import decode_image
from sslpurify.data.folder import printable
from sslpurify.errors import DataError
from sslpurify.rng import generator

_LEAST = 8  # pixels; smaller images have no room for the built-in patches
_LONGEST = 60  # signs of a description that serves as a name


@dataclass(frozen=True, eq=False)
class Trigger:
    """A named function on images in [0, 1].

    Args:
        name: For people.
        size: Side of the images that it is laid on, in pixels.
        effect: What it does to them.
        description: The same in words; for a described kind its line of YAML.
        file: Where it was read from; None: no file of its own.
    """

    name: str
    size: int
    effect: Effect
    description: str
    file: Path | None = None

    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """New images with the trigger; same shape, range, type and device.

        Raises:
            DataError: When the images are not of the trigger's size.
        """
        if images.shape[-2:] != (self.size, self.size):
            raise DataError(
                f"trigger {self.name} is {self.size} × {self.size}, "
                f"the images are {images.shape[-2]} × {images.shape[-1]}"
            )
        return self.effect(images)

    @property
    def picture(self) -> Float[Tensor, "3 h w"]:
        """The trigger on a grey image, for people."""
        return self(torch.full((1, 3, self.size, self.size), 0.5))[0]

    def digest(self) -> str:
        """SHA-256 of what it makes of noise, in 8 bits: the same for the same function."""
        seen = (self(_noise(self.size)) * 255).round().byte()
        return hashlib.sha256(seen.numpy().tobytes()).hexdigest()


def read_trigger(source: str, size: int, index: int = 0) -> Trigger:
    """A trigger from a file, or a built-in one by its name.

    * ``.npz``: BadEncoder's files, ``t`` and ``tm`` in HWC with or without a leading axis of
      targets, applied as image · tm + t: tm is 1 where the image is *kept*. ``t`` holds 0 to 255.
    * ``.yaml``: a description, one of `sslpurify.attacks.patterns`'s kinds, or several in sequence.
    * the description itself in braces: ``{kind: wanet, strength: 2}``.
    * a picture of the images' size; where it is transparent, the image stays.

    A trigger is never resized: one of another size is another trigger.

    Args:
        source: Path, name or description.
        size: Side of the encoder's images in pixels.
        index: Which of an npz file's targets.

    Raises:
        DataError: Missing, damaged, of another size, without any effect, or hiding the whole image.
        UnsafeInputError: The file would run code, leave its folder or exhaust memory.
    """
    if size < _LEAST:
        raise DataError(f"images of {size} × {size} are too small for a trigger: {_LEAST} at least")
    suffix = "" if _is_described(source) else Path(source).suffix.lower()
    if index and suffix != ".npz":
        raise DataError(f"trigger {source}: index {index}, but only an npz file holds several")
    file = Path(source) if suffix else None
    trigger = Trigger(trigger_name(source), size, *_read(source, suffix, size, index), file)
    plain = _noise(size)
    seen = trigger(plain)
    if torch.equal(seen, plain):
        raise DataError(f"trigger {source} changes no image: it is empty")
    if torch.equal(seen[0], seen[1]):
        raise DataError(
            f"trigger {source} hides the whole image, so all triggered images would be the same: "
            "make parts of it transparent, or blend it by a YAML file "
            "(kind: image, file: …, alpha: 0.2)"
        )
    return trigger


def trigger_name(source: str) -> str:
    """What `read_trigger` calls what it reads: the file, or what was written in its place."""
    if _is_described(source):
        return textwrap.shorten(source, _LONGEST, placeholder=" …")
    return Path(source).name


def save_picture(trigger: Trigger, path: Path) -> None:
    """Writes a trigger that lays a pattern on images as a PNG, which `read_trigger` reads.

    Args:
        trigger: Values that 8 bits do not hold are rounded; a mask is one for all channels.
        path: A new file.

    Raises:
        ValueError: The trigger does something else to images.
    """
    effect = trigger.effect
    if not isinstance(effect, Blend) or effect.mask.ndim != 2:
        raise ValueError(f"trigger {trigger.name} is no pattern with one mask")
    channels = torch.cat([effect.pattern, effect.mask[None]])
    pixels = (channels * 255).round().byte().permute(1, 2, 0).contiguous()
    Image.fromarray(pixels.numpy()).save(path, format="PNG")


def read_reference(source: str, size: int, index: int = 0) -> Float[Tensor, "1 3 h w"]:
    """The attacker's reference image, in [0, 1].

    Args:
        source: An npz file with ``x`` in NHWC (or HWC), 0 to 255 or floating point in [0, 1], which
            must have the size asked for; or a picture, which is brought to it.
        size: Side of the encoder's images in pixels.
        index: Which image of an npz file.

    Raises:
        DataError: Missing, damaged, or of another size.
        UnsafeInputError: The file would run code or exhaust memory.
    """
    path = Path(source)
    if path.suffix.lower() == ".npz":
        pixels = _pixels(_pick(read_array(path, "x"), index, size, f"{printable(path)}: x"), path)
        return pixels[None].contiguous()
    if index:
        raise DataError(f"reference {source}: index {index}, but only an npz file holds several")
    return decode_image(path, size)[None].float() / 255


def _read(source: str, suffix: str, size: int, index: int) -> tuple[Effect, str]:
    path = Path(source)
    if source in BUILT_IN:
        described = BUILT_IN[source](size)
        return described.effect(size), str(described)
    if _is_described(source):
        return read_description(source, size)
    if suffix == ".npz":
        return _from_npz(path, size, index), f"t and tm, index {index}"
    if suffix in (".yaml", ".yml"):
        return read_described(path, size)
    if not suffix:
        raise DataError(
            f"{printable(source)}: no such built-in trigger; there are {', '.join(BUILT_IN)}"
        )
    return read_picture(path, size), f"a picture of {size} × {size} pixels"


def _is_described(source: str) -> bool:
    return source.lstrip().startswith("{")


def _from_npz(path: Path, size: int, index: int) -> Blend:
    where = printable(path)
    added = _pixels(_pick(read_array(path, "t"), index, size, f"{where}: t"), path)
    kept = _pick(read_array(path, "tm"), index, size, f"{where}: tm").astype(np.float64)
    if not ((kept >= 0) & (kept <= 1)).all():
        raise DataError(f"{where}: tm has values outside [0, 1]")
    mask = 1 - torch.from_numpy(kept).float().permute(2, 0, 1)
    if (added > mask + 1e-6).any():
        raise DataError(
            f"{where}: t adds to the image where tm keeps it (image · tm + t would exceed white); "
            "tm must be 1 outside the patch and 0 in it"
        )
    pattern = torch.where(mask > 0, added / mask, 0).clamp(0, 1)
    return Blend(pattern, mask.expand(3, -1, -1).contiguous())


def _noise(size: int) -> Float[Tensor, "2 3 h w"]:
    """Two images that have nothing in common, the same everywhere."""
    return torch.rand(2, 3, size, size, generator=generator(0, "trigger", size))


def _pick(array: np.ndarray, index: int, size: int, what: str) -> np.ndarray:
    """The HWC array at ``index`` of the leading axis, where there is one."""
    images = array if array.ndim == 4 else array[None]
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise DataError(f"{what} has shape {array.shape}, not ([targets], height, width, channels)")
    if not 0 <= index < len(images):
        raise DataError(f"{what} holds {len(images)}, counted from 0: there is no index {index}")
    if images.shape[1:3] != (size, size):
        raise DataError(
            f"{what} is {images.shape[1]} × {images.shape[2]}, "
            f"but the encoder's images are {size} × {size}"
        )
    return images[index]


def _pixels(array: np.ndarray, path: Path) -> Tensor:
    """HWC values, 0 to 255 or floating point in [0, 1], as CHW in [0, 1]."""
    values = torch.from_numpy(array.astype(np.float64))
    if not ((values >= 0) & (values <= 255)).all():
        raise DataError(f"{printable(path)}: pixels outside 0 to 255")
    in_unit = array.dtype.kind == "f" and float(values.max()) <= 1
    values = values if in_unit else values / 255
    return values.float().permute(2, 0, 1).expand(3, -1, -1)
