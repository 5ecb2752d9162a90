"""A checkpoint in memory: the weights, and everything needed to write them back as they came."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslpurify.checkpoint.source import Source
from sslpurify.checkpoint.stored import Container, Span
from sslpurify.errors import CheckpointError
from sslpurify.statedict import identical, listing
from sslpurify.types import State


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint file holds, or a folder of such files.

    Args:
        path: The file or folder it was read from.
        sha256: The hash of that file, in hexadecimal; of a folder, `folder.digest` of its weight
            files.
        container: Its format, found by its content.
        tree: All it holds, tensors as descriptions; see `pickles`.
        wrapper: The keys in ``tree`` that lead to the state dict, ``()`` where it is one itself.
        tensors: The tensors of that state dict, with the file's names, order and dtypes. Those
            that share memory in the file share it here.
        metadata: The metadata of a safetensors file.
        siblings: Places of other state dicts of about the same size, which ``replace`` leaves as
            they are: an averaged copy, a teacher.
        parts: The weight files of a folder, in the order of its index; ``tensors`` has all of
            theirs.
        config: The ``config.json`` of a folder, or open_clip's ``open_clip_config.json``.
        carried: The small files beside the weights of a folder, written back byte for byte.
        left_out: The entries of a folder that are not, each with the reason.
        inert: Classes and functions that the file names as data. Nothing was made of them, and
            they stay in the file.
        spans: Tensor name to where the file keeps the memory it lies in.
        source: The file itself; None of a checkpoint that was made and not read.
    """

    path: Path
    sha256: str
    container: Container
    tree: dict[str, Any]
    wrapper: tuple[str, ...]
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    siblings: tuple[str, ...] = ()
    parts: "tuple[Checkpoint, ...]" = ()
    config: dict[str, Any] | None = None
    carried: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    left_out: tuple[str, ...] = ()
    inert: tuple[str, ...] = ()
    spans: Mapping[str, Span] = field(default_factory=dict[str, Span])
    source: Source | None = None


def new(tensors: State, metadata: Mapping[str, str] | None = None) -> Checkpoint:
    """A checkpoint that comes from no file, to be written as safetensors."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return Checkpoint(Path(), "", "safetensors", {}, (), kept, {"format": "pt", **(metadata or {})})


def replace(checkpoint: Checkpoint, tensors: State) -> Checkpoint:
    """A checkpoint with new values under existing names, cast to the file's dtypes.

    Tensors that share memory in the file (tied weights) go on sharing it, so that all of them get
    the new values.

    Args:
        checkpoint: Stays as it is.
        tensors: Any part of the state dict's names; the others keep their values.

    Raises:
        CheckpointError: A name is not in the file, a shape differs, a value is not finite in the
            file's dtype, or two tensors of the same memory would get different values.
    """
    unknown = [name for name in tensors if name not in checkpoint.tensors]
    if unknown:
        raise CheckpointError(f"the file holds no {listing(unknown)}: only its own tensors change")
    if checkpoint.parts:
        parts = tuple(
            replace(part, {name: tensors[name] for name in part.tensors if name in tensors})
            for part in checkpoint.parts
        )
        return dataclasses.replace(checkpoint, parts=parts, tensors=joined(parts))
    old = checkpoint.tensors
    values = {name: _fitted(name, tensor, old[name]) for name, tensor in tensors.items()}
    changed = {_memory(old[name]) for name in values}
    memory = {_memory(t): t.untyped_storage() for t in old.values() if _memory(t) in changed}
    fresh = {place: storage.clone() for place, storage in memory.items()}
    new = {
        name: _in_memory(fresh[_memory(tensor)], tensor) if _memory(tensor) in fresh else tensor
        for name, tensor in old.items()
    }
    for name, value in values.items():
        new[name].copy_(value)
    torn = [name for name, value in values.items() if not identical(new[name], value)]
    if torn:
        raise CheckpointError(
            f"{listing(torn)}: shares memory with other tensors in the file, and the new values "
            "differ from theirs"
        )
    return dataclasses.replace(checkpoint, tensors=new)


def joined(parts: Sequence[Checkpoint]) -> dict[str, Tensor]:
    """The tensors of all weight files of a folder."""
    return {name: tensor for part in parts for name, tensor in part.tensors.items()}


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _in_memory(storage: torch.UntypedStorage, like: Tensor) -> Tensor:
    """A tensor that lies in ``storage`` where ``like`` lies in its own."""
    empty = torch.empty(0, dtype=like.dtype)
    return empty.set_(storage, like.storage_offset(), like.shape, like.stride())


def _fitted(name: str, tensor: Tensor, like: Tensor) -> Tensor:
    """A copy of ``tensor`` that can stand where ``like`` stands."""
    if tensor.shape != like.shape:
        raise CheckpointError(
            f"{listing([name])} is {tuple(like.shape)} in the file, not {tuple(tensor.shape)}"
        )
    value = tensor.detach().to("cpu", like.dtype, copy=True)
    if not torch.isfinite(value).all():
        raise CheckpointError(f"{listing([name])} has values that are not finite in {like.dtype}")
    return value
