"""Triggers from pictures and from YAML descriptions."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, TypeAdapter, ValidationError

from sslpurify.attacks.effects import Blend, Chain, Effect
from sslpurify.attacks.patterns import (
    Checker,
    Described,
    Frequency,
    Image,
    Noise,
    Patch,
    Sequence,
    Sig,
    Single,
    WaNet,
)
from sslpurify.data import open_image
from sslpurify.data.folder import printable
from sslpurify.errors import ConfigError, DataError, UnsafeInputError
from sslpurify.strict_yaml import parse

_MAX_BYTES = 16 * 2**10

_KINDS: dict[str, type[Described]] = {
    "patch": Patch,
    "checker": Checker,
    "noise": Noise,
    "image": Image,
    "sig": Sig,
    "wanet": WaNet,
    "frequency": Frequency,
    "sequence": Sequence,
}
_DESCRIPTION: TypeAdapter[Single | Sequence] = TypeAdapter(
    Annotated[Single | Sequence, Field(discriminator="kind")]
)


def read_described(path: Path, size: int) -> tuple[Effect, str]:
    """As `read_description`, for the text of a file.

    Raises:
        DataError: Likewise, or the file cannot be read.
        UnsafeInputError: Likewise.
    """
    return read_description(_load(path), size, path)


def read_description(text: str, size: int, path: Path = Path("trigger")) -> tuple[Effect, str]:
    """What a trigger described in YAML does to images of this size, and its description.

    Args:
        text: One of `sslpurify.attacks.patterns`'s kinds.
        size: Side of the images in pixels.
        path: For messages; files that the description names lie in its folder.

    Raises:
        DataError: Not such a description (all its faults at once), or made for another size.
        UnsafeInputError: The YAML asks for more than plain data, or for a file outside its folder.
    """
    try:
        found = _DESCRIPTION.validate_python(_plain(text, path))
    except ValidationError as error:
        faults = "; ".join(_faults(error))
        raise DataError(f"{printable(path)}: {faults}") from None
    return _effect(found, path, size), str(found)


def _effect(described: Single | Sequence, path: Path, size: int) -> Effect:
    if described.size not in (None, size):
        raise DataError(
            f"{printable(path)}: made for images of {described.size} × {described.size}, "
            f"but the encoder's images are {size} × {size}"
        )
    if isinstance(described, Sequence):
        return Chain([_effect(step, path, size) for step in described.steps])
    if isinstance(described, Image):
        file = _beside(path, described.file)
        return read_picture(file, size, described.position, described.alpha)
    try:
        return described.effect(size)
    except DataError as error:
        raise DataError(f"{printable(path)}: {error}") from error


def read_picture(
    path: Path, size: int, position: tuple[int, int] | None = None, alpha: float = 1.0
) -> Blend:
    """A picture as a trigger; its mask is its own opacity times ``alpha``.

    Args:
        path: The picture.
        size: Side of the encoder's images in pixels.
        position: Row and column of its top left corner; None: it must have the images' size.
        alpha: 1 as it is, less blends it into the image.

    Raises:
        DataError: Unreadable, not 8-bit, or not fitting into the images.
    """
    image = open_image(path)
    if image.mode[0] in "IF":
        raise DataError(f"{printable(path)}: a trigger needs 8 bits a channel, not {image.mode}")
    top, left = position or (0, 0)
    fits = top + image.height <= size and left + image.width <= size
    if not fits or (position is None and image.size != (size, size)):
        at = f" at row {top} and column {left}" if position else ""
        raise DataError(
            f"{printable(path)} is {image.height} × {image.width}{at}, "
            f"but the encoder's images are {size} × {size}; a smaller picture is placed by a YAML "
            "file (kind: image, file: …, position: [row, column])"
        )
    values = torch.from_numpy(np.array(image.convert("RGBA"))).permute(2, 0, 1).float() / 255
    pattern, mask = torch.zeros(3, size, size), torch.zeros(size, size)
    inside = (slice(top, top + image.height), slice(left, left + image.width))
    pattern[:, *inside] = values[:3]
    mask[inside] = values[3] * alpha
    return Blend(pattern, mask)


def _load(path: Path) -> str:
    where = printable(path)
    if not path.is_file():
        raise DataError(f"{where}: no such file")
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise UnsafeInputError(f"{where}: longer than {_MAX_BYTES // 2**10} KiB")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DataError(f"{where}: not valid YAML: not UTF-8") from None


def _plain(text: str, path: Path) -> Any:
    where = printable(path)
    try:
        return parse(text)
    except UnsafeInputError as error:
        raise UnsafeInputError(f"{where}: {printable(str(error))}") from None
    except ConfigError as error:
        raise DataError(f"{where}: {printable(str(error))}") from None


def _beside(path: Path, file: str) -> Path:
    """The file named in a description, which must not leave the description's folder."""
    folder = path.parent.resolve()
    found = (folder / file).resolve()
    if not found.is_relative_to(folder):
        raise UnsafeInputError(
            f"{printable(path)}: file {printable(file)} lies outside the description's folder"
        )
    return found


def _faults(error: ValidationError) -> list[str]:
    faults: list[str] = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        kind, name = _located(fault["loc"])
        message = printable(fault["msg"])
        if fault["type"] == "extra_forbidden":
            known = _KINDS[kind].model_fields
            close = get_close_matches(name.rpartition(".")[2], known, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
            message = f"unknown key; {hint}"
        faults.append(f"{printable(name)}: {message}" if name else message)
    return faults


def _located(place: tuple[int | str, ...]) -> tuple[str, str]:
    """The kind of the description that a fault lies in, and the key's path without kinds."""
    kind, *key = place or ("",)
    if kind == "sequence" and len(key) > 2:
        steps, number, kind, *rest = key
        key = [steps, number, *rest]
    return str(kind), ".".join(str(part) for part in key)
