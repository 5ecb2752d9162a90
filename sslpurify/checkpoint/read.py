"""From a file of a stranger to weights, without running anything that it holds."""

import hashlib
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from sslpurify.checkpoint import safetensors_file, torch_file
from sslpurify.checkpoint.checkpoint import Checkpoint, joined
from sslpurify.checkpoint.folder import digest, require_partition, survey
from sslpurify.checkpoint.pickles import require_plain
from sslpurify.checkpoint.sniff import Container, sniff
from sslpurify.checkpoint.tree import at, require_bounded, require_data, state_dicts
from sslpurify.checkpoint.weights import require_usable
from sslpurify.errors import CheckpointError, UnsafeInputError


def read(path: Path) -> Checkpoint:
    """Reads a checkpoint; its suffix does not matter, and nothing in it is executed.

    Args:
        path: A safetensors file, or what ``torch.save`` writes or wrote before version 1.6; or a
            folder of Hugging Face or open_clip that holds such files.

    Raises:
        CheckpointError: There is no such file, it is something else, it is damaged, or its
            weights cannot be weights (NaN, infinity, sparse, complex, negative variances).
        UnsafeInputError: It names code, is a program, leaves its folder, or would need more
            memory than its size.
    """
    return _read_folder(path) if path.is_dir() else _read_file(path)


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
        tree=tensors,
        wrapper=(),
        tensors=tensors,
        metadata={},
        siblings=tuple(place for part in parts for place in part.siblings),
        parts=parts,
        config=folder.config,
        carried=folder.carried,
        left_out=folder.left_out,
    )


def _read_file(path: Path) -> Checkpoint:
    with _about(path), _opened(path) as file:
        container, tree, metadata = _contents(file, path)
        require_data(tree)
        require_bounded(tree, os.fstat(file.fileno()).st_size)
        places = state_dicts(tree)
        if not isinstance(tree, dict) or not places:
            raise CheckpointError("it holds no tensors under names, so no state dict")
        file.seek(0)
        return Checkpoint(
            path=path,
            sha256=hashlib.file_digest(file, "sha256").hexdigest(),
            container=container,
            tree=tree,
            wrapper=places[0],
            tensors=require_usable(at(tree, places[0])),
            metadata=metadata,
            siblings=tuple(".".join(place) or "(top level)" for place in places[1:]),
        )


def _contents(file: BufferedReader, path: Path) -> tuple[Container, Any, dict[str, str]]:
    kind = sniff(file)
    if kind == "safetensors":
        return kind, *safetensors_file.load(file, path)
    if kind == "torch-zip":
        return kind, torch_file.load_zip(file), {}
    if kind == "torch-legacy":
        return kind, torch_file.load_legacy(file), {}
    try:
        require_plain(file)
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
