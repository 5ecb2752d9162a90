"""From a file of a stranger to weights, without running anything that it holds."""

import hashlib
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from sslpurify.checkpoint import safetensors_file, torch_file
from sslpurify.checkpoint.checkpoint import Checkpoint, joined
from sslpurify.checkpoint.folder import digest, require_partition, survey
from sslpurify.checkpoint.pickles import interpret
from sslpurify.checkpoint.sniff import sniff
from sslpurify.checkpoint.source import Source
from sslpurify.checkpoint.stored import Contents
from sslpurify.checkpoint.tree import Place, at, require_bounded, state_dicts
from sslpurify.checkpoint.weights import load, require_dense
from sslpurify.errors import CheckpointError, UnsafeInputError
from sslpurify.statedict import listing


def read(path: Path, *, allow_torchscript: bool = False) -> Checkpoint:
    """Reads a checkpoint; its suffix does not matter, and nothing in it is executed.

    Args:
        path: A safetensors file, or what ``torch.save`` writes or wrote before version 1.6; or a
            folder of Hugging Face or open_clip that holds such files.
        allow_torchscript: Whether to take the weights out of a TorchScript archive, whose program
            is not run either.

    Raises:
        CheckpointError: There is no such file, it is something else, it is damaged, or its
            weights cannot be weights (NaN, infinity, sparse, complex, negative variances).
        UnsafeInputError: It names code, is a program, leaves its folder, or would need more
            memory than its size.
    """
    return _read_folder(path) if path.is_dir() else _read_file(path, allow_torchscript)


def _read_folder(path: Path) -> Checkpoint:
    with _about(path):
        folder = survey(path)
    parts = tuple(_read_file(path / name) for name in folder.weights)
    with _about(path):
        require_partition(folder, {part.path.name: part.tensors for part in parts})
    tensors = joined(parts)
    return Checkpoint(
        path=path,
        sha256=digest({part.path.name: part.sha256 for part in parts}),
        container=parts[0].container,
        tree={},
        wrapper=(),
        tensors=tensors,
        metadata={},
        siblings=tuple(place for part in parts for place in part.siblings),
        parts=parts,
        config=folder.config,
        carried=folder.carried,
        left_out=folder.left_out,
        inert=tuple(dict.fromkeys(name for part in parts for name in part.inert)),
    )


def _read_file(path: Path, allow_torchscript: bool = False) -> Checkpoint:
    with _about(path), _opened(path) as file:
        contents = _contents(file, allow_torchscript)
        tree = contents.tree
        require_bounded(tree, os.fstat(file.fileno()).st_size)
        place, *others = _places(contents)
        stored = require_dense(at(tree, place))
        tensors = load(file, stored, contents.spans)
        file.seek(0)
        return Checkpoint(
            path=path,
            sha256=hashlib.file_digest(file, "sha256").hexdigest(),
            container=contents.container,
            tree=tree,
            wrapper=place,
            tensors=tensors,
            metadata=contents.metadata,
            siblings=tuple(".".join(place) or "(top level)" for place in others),
            inert=contents.inert,
            spans={
                name: contents.spans[tensor.storage.key]
                for name, tensor in stored.items()
                if tensor.storage is not None
            },
            source=Source(file),
        )


def _places(contents: Contents) -> list[Place]:
    places = state_dicts(contents.tree)
    if places:
        return places
    if contents.inert:
        raise UnsafeInputError(
            "it holds no state dict but objects, and to make them would run "
            f"{listing(contents.inert)}; nothing was run. Ask its publisher for the state dict, "
            "or for a safetensors file"
        )
    raise CheckpointError("it holds no tensors under names, so no state dict")


def _contents(file: BufferedReader, allow_torchscript: bool) -> Contents:
    kind = sniff(file)
    if kind == "safetensors":
        return safetensors_file.load(file)
    if kind == "torch-zip":
        return torch_file.load_zip(file, allow_torchscript=allow_torchscript)
    if kind == "torch-legacy":
        return torch_file.load_legacy(file)
    try:
        interpret(file)
    except CheckpointError:
        raise CheckpointError("not a checkpoint, nor any other file known here") from None
    raise CheckpointError(
        "a plain pickle of Python, not a checkpoint of torch: save the state dict with safetensors"
    )


@contextmanager
def _about(path: Path) -> Generator[None]:
    """Puts the file's name in front of what is said about it."""
    try:
        yield
    except (CheckpointError, UnsafeInputError) as error:
        raise type(error)(f"{path}: {error}") from error.__cause__
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


@contextmanager
def _opened(path: Path) -> Generator[BufferedReader]:
    if "\0" in str(path):
        raise CheckpointError("not a file name")
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        # Opening a pipe would wait for ever, reading a device would never end.
        raise CheckpointError("not a regular file")
    with path.open("rb") as file:
        yield file
