"""A folder of Hugging Face or open_clip: which files are its weights, and what stands beside them.

The index of a sharded model names files and is as hostile as they are: transformers itself loads
``"../outside.safetensors"`` from it (transformers#47176). Here every file lies in the folder.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslpurify.checkpoint import strict_json
from sslpurify.errors import CheckpointError, UnsafeInputError
from sslpurify.statedict import listing

_MODELS = {
    "model.safetensors": "config.json",
    "pytorch_model.bin": "config.json",
    "open_clip_model.safetensors": "open_clip_config.json",
    "open_clip_pytorch_model.bin": "open_clip_config.json",
}
"""Names of weights, those to prefer first, and of the configuration that describes them."""
_INDEX = ".index.json"
_MAX_FILES = 10_000
_MAX_INDEX = 16 * 2**20
_MAX_CONFIG = 2**20
_MAX_CARRIED = 64 * 2**20
_MAX_CARRIED_IN_ALL = 256 * 2**20
_CODE = re.compile(r".*\.(py\w?|ipynb|sh|bat|ps1|so|dll|dylib|exe|js|jar)", re.IGNORECASE)
_WEIGHTS = re.compile(
    r".*\.(safetensors|bin|pth?|pt2|ckpt|h5|keras|msgpack|onnx|onnx_data|gguf|pkl|pickle|joblib"
    r"|np[yz]|tflite|pb|mlmodel|zip|tar|tgz)",
    re.IGNORECASE,
)
_PICKLES_AND_ARCHIVES = (b"\x80", b"PK\x03\x04", b"\x89HDF", b"GGUF", b"\x93NUMPY")
_CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code")


@dataclass(frozen=True)
class Folder:
    """What a folder holds.

    Args:
        weights: Names of its weight files, in the order of their index.
        weight_map: Tensor name to weight file, where there is an index.
        config: Its ``config.json``, or ``open_clip_config.json`` where the weights are open_clip's.
        carried: The small files beside the weights, byte for byte.
        left_out: The other entries, each with the reason.
    """

    weights: tuple[str, ...]
    weight_map: Mapping[str, str] | None
    config: dict[str, Any] | None
    carried: dict[str, bytes]
    left_out: tuple[str, ...]


def survey(path: Path) -> Folder:
    """Finds the weights of a folder and reads the small files beside them.

    Raises:
        CheckpointError: It holds no weights under a usual name, or its index is damaged.
        UnsafeInputError: A file lies outside, is larger than any such file, or asks for code.
    """
    with os.scandir(path) as entries:
        names = sorted(entry.name for _, entry in zip(range(_MAX_FILES + 1), entries, strict=False))
    if len(names) > _MAX_FILES:
        raise UnsafeInputError(f"a folder of more than {_MAX_FILES:,} files would exhaust memory")
    model, index = _model(names)
    weight_map = _weight_map(path, model + _INDEX) if index else None
    weights = tuple(dict.fromkeys(weight_map.values())) if weight_map else (model,)
    for name in weights:
        _require_inside(path, name)
    config = _MODELS[model]
    carried, left_out = _beside(path, names, {*weights}, model + _INDEX if index else "")
    return Folder(
        weights=weights,
        weight_map=weight_map,
        config=_config(carried[config], config) if config in carried else None,
        carried=carried,
        left_out=left_out,
    )


def _model(names: Iterable[str]) -> tuple[str, bool]:
    """The weights to read, and whether an index says in which files they are."""
    present = set(names)
    for model in _MODELS:
        if model in present or model + _INDEX in present:
            return model, model not in present
    if ".metadata" in present:
        raise CheckpointError(
            "a folder of torch's distributed checkpoints: convert it to one file with "
            "torch.distributed.checkpoint.format_utils"
        )
    raise CheckpointError(
        f"a folder without {', '.join(_MODELS)} or an index of them: name the checkpoint file "
        "inside it"
    )


def _weight_map(path: Path, name: str) -> dict[str, str]:
    found = strict_json.parse(_content(path, name, _MAX_INDEX), name).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{name} has no weight_map, which says where each tensor is")
    for tensor, file in found.items():
        if not isinstance(file, str):
            raise CheckpointError(f"{name}: the file of {listing([tensor])} is no text")
        if file in ("", ".", "..") or re.search(r'[/\\:\0-\x1f"]', file):
            raise UnsafeInputError(
                f"{name} names {listing([file])} for {listing([tensor])}: weights are only read "
                "from the folder itself"
            )
    return found


def require_partition(folder: Folder, holds: Mapping[str, Iterable[str]]) -> None:
    """Makes sure that every tensor is in one weight file, and in the one that the index says.

    Args:
        folder: As surveyed.
        holds: Weight file to the names of its tensors.

    Raises:
        CheckpointError: A tensor is in two files, in another than listed, missing or not listed.
    """
    found: dict[str, str] = {}
    for file, names in holds.items():
        twice = [name for name in names if name in found]
        if twice:
            raise CheckpointError(
                f"{listing(twice)}: in two files, {listing([found[twice[0]], file])}, and readers "
                "disagree on which one counts"
            )
        found |= dict.fromkeys(names, file)
    listed = folder.weight_map if folder.weight_map is not None else found
    for problem, names in (
        ("the index lists tensors that are in none of its files", listed.keys() - found.keys()),
        ("tensors that the index does not list", found.keys() - listed.keys()),
        (
            "the index names another file than the one that holds them",
            {name for name, file in found.items() if listed.get(name, file) != file},
        ),
    ):
        if names:
            raise CheckpointError(f"{problem}: {listing(sorted(names))}")


def digest(hashes: Mapping[str, str]) -> str:
    """One hash of several files: the sha256 of what ``sha256sum`` prints for them, by name.

    So ``sha256sum model-*.safetensors | sha256sum`` in the folder gives the same.
    """
    lines = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


def _beside(
    path: Path, names: Iterable[str], weights: set[str], index: str
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The files that go where the weights go, and those that do not."""
    carried: dict[str, bytes] = {}
    left_out: list[str] = []
    room = _MAX_CARRIED_IN_ALL
    for name in names:
        if name in weights:
            continue
        reason = _unwanted(path, name, index)
        content = b"" if reason else _content(path, name, _MAX_CARRIED)
        room -= len(content)
        if room < 0:
            reason = "too large together with the others"
        elif content.startswith(_PICKLES_AND_ARCHIVES):
            reason = "a pickle or an archive"
        if reason:
            left_out.append(f"{listing([name])}: {reason}")
            continue
        if name.endswith("config.json"):
            _refuse_code(_config(content, name), name)
        carried[name] = content
    return carried, tuple(left_out)


def _unwanted(path: Path, name: str, index: str) -> str:
    """Why a file does not go where the weights go; empty when it does."""
    try:
        status = (path / name).stat()
        outside = not _is_inside(path, name)
    except OSError:
        return "a link to nothing"
    if stat.S_ISDIR(status.st_mode):
        return "a folder"
    if outside:
        return "a link that leaves the folder"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if _CODE.fullmatch(name):
        return "code, which is never read"
    if _WEIGHTS.fullmatch(name) or (name.endswith(_INDEX) and name != index):
        return "other weights, which were not read"
    return "too large" if status.st_size > _MAX_CARRIED else ""


def _config(content: bytes, name: str) -> dict[str, Any]:
    if len(content) > _MAX_CONFIG:
        raise UnsafeInputError(f"{name} is larger than {_MAX_CONFIG:,} bytes")
    return strict_json.parse(content, name)


def _refuse_code(config: dict[str, Any], name: str) -> None:
    pending: list[Any] = [config]
    while pending:
        item = pending.pop()
        pending += strict_json.children(item)
        asked = [key for key in _CODE_KEYS if isinstance(item, dict) and item.get(key)]
        if asked:
            raise UnsafeInputError(
                f"{name} asks with {listing(asked)} to run code of the folder or of its publisher "
                f"({item[asked[0]]!r:.120}); nothing was run. Only models that transformers or "
                "open_clip know by themselves are read"
            )


def _require_inside(path: Path, name: str) -> None:
    try:
        inside = _is_inside(path, name)
    except OSError:
        raise CheckpointError(
            f"the weight file {listing([name])} is missing: download the folder again"
        ) from None
    if not inside:
        raise UnsafeInputError(
            f"the weight file {listing([name])} is a link that leaves the folder. If it is a "
            "download cache of your own, copy the folder with its links resolved (cp -rL)"
        )


def _is_inside(path: Path, name: str) -> bool:
    return (path / name).resolve(strict=True).is_relative_to(path.resolve())


def _content(path: Path, name: str, limit: int) -> bytes:
    _require_inside(path, name)
    if not (path / name).is_file():
        raise CheckpointError(f"{listing([name])} is not a regular file")
    with (path / name).open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UnsafeInputError(f"{listing([name])} is larger than {limit:,} bytes")
    return content
