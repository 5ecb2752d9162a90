"""A checkpoint in memory: the weights, and everything needed to write them back as they came."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslpurify.checkpoint.sniff import Container
from sslpurify.checkpoint.tree import at, updated
from sslpurify.errors import CheckpointError
from sslpurify.statedict import listing
from sslpurify.types import State


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint file holds, or a folder of such files.

    Args:
        path: The file or folder it was read from.
        sha256: The hash of that file, in hexadecimal; of a folder, `folder.digest` of its weight
            files.
        container: Its format, found by its content.
        tree: All it holds; for safetensors the tensors themselves.
        wrapper: The keys in ``tree`` that lead to the state dict, ``()`` where it is one itself.
        tensors: The tensors of that state dict, with the file's names, order and dtypes.
        metadata: The metadata of a safetensors file.
        siblings: Places of other state dicts of about the same size, which ``replace`` leaves as
            they are: an averaged copy, a teacher.
        parts: The weight files of a folder, in the order of its index; ``tensors`` has all of
            theirs.
        config: The ``config.json`` of a folder, or open_clip's ``open_clip_config.json``.
        carried: The small files beside the weights of a folder, written back byte for byte.
        left_out: The entries of a folder that are not, each with the reason.
    """

    path: Path
    sha256: str
    container: Container
    tree: dict[Any, Any]
    wrapper: tuple[str, ...]
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    siblings: tuple[str, ...] = ()
    parts: "tuple[Checkpoint, ...]" = ()
    config: dict[str, Any] | None = None
    carried: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    left_out: tuple[str, ...] = ()


def new(tensors: State) -> Checkpoint:
    """A checkpoint that comes from no file, to be written as safetensors."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return Checkpoint(Path(), "", "safetensors", kept, (), kept, {"format": "pt"})


def replace(checkpoint: Checkpoint, tensors: State) -> Checkpoint:
    """A checkpoint with new values under existing names, cast to the file's dtypes.

    Args:
        checkpoint: Stays as it is.
        tensors: Any part of the state dict's names; the others keep their values.

    Raises:
        CheckpointError: A name is not in the file, a shape differs, or a value is not finite in
            the file's dtype.
    """
    unknown = [name for name in tensors if name not in checkpoint.tensors]
    if unknown:
        raise CheckpointError(f"the file holds no {listing(unknown)}: only its own tensors change")
    if checkpoint.parts:
        parts = tuple(
            replace(part, {name: tensors[name] for name in part.tensors if name in tensors})
            for part in checkpoint.parts
        )
        both = joined(parts)
        return dataclasses.replace(checkpoint, parts=parts, tree=both, tensors=both)
    flat = at(checkpoint.tree, checkpoint.wrapper)
    values = {name: _fitted(name, tensor, flat[name]) for name, tensor in tensors.items()}
    return dataclasses.replace(
        checkpoint,
        tree=updated(checkpoint.tree, checkpoint.wrapper, values),
        tensors=checkpoint.tensors | {name: value.detach() for name, value in values.items()},
    )


def joined(parts: Sequence[Checkpoint]) -> dict[str, Tensor]:
    """The tensors of all weight files of a folder."""
    return {name: tensor for part in parts for name, tensor in part.tensors.items()}


def _fitted(name: str, tensor: Tensor, like: Tensor) -> Tensor:
    """A copy of ``tensor`` that can stand where ``like`` stands."""
    if tensor.shape != like.shape:
        raise CheckpointError(
            f"{listing([name])} is {tuple(like.shape)} in the file, not {tuple(tensor.shape)}"
        )
    # Copied, so that a view does not bring the whole of its storage into the file; contiguous, so
    # that the bytes depend on the values and not on how a device liked them in memory.
    value = tensor.detach().to("cpu", like.dtype, copy=True).contiguous()
    if not torch.isfinite(value).all():
        raise CheckpointError(f"{listing([name])} has values that are not finite in {like.dtype}")
    if isinstance(like, torch.nn.Parameter):
        return torch.nn.Parameter(value, requires_grad=like.requires_grad)
    return value.requires_grad_(like.requires_grad)
