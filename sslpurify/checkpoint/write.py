"""From weights to a file in the format they came in, whole or not at all."""

import os
import secrets
import shutil
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path

from sslpurify.checkpoint import safetensors_file, torch_file
from sslpurify.checkpoint.checkpoint import Checkpoint
from sslpurify.checkpoint.read import read
from sslpurify.checkpoint.tree import same
from sslpurify.errors import CheckpointError, ConfigError, TrainingError, UnsafeInputError


def write(checkpoint: Checkpoint, path: Path) -> str:
    """Writes a checkpoint in its own container; returns the sha256 of the new file or folder.

    The same content gives the same bytes, whatever the name. A folder keeps its partition into
    weight files and the small files beside them. All appears under its name only after it was
    written, flushed to the disk, read back and found equal; when any of that fails nothing is left
    behind, and a file that was there before stays.

    Args:
        checkpoint: What to write.
        path: Where to; its folder must exist, and it must not be what the checkpoint came from.
            A folder is only written where there is none, or an empty one.

    Raises:
        ConfigError: ``path`` is the source itself or lies inside it.
        TrainingError: The disk is full, or the file cannot be created, or reads back differently.
    """
    if _is_file(path, checkpoint.path):
        raise ConfigError(f"{path}: is the checkpoint that was read, which is never overwritten")
    if checkpoint.parts and path.resolve().is_relative_to(checkpoint.path.resolve()):
        raise ConfigError(f"{path}: lies in the folder that was read, which is never changed")
    temporary = path.with_name(f".sslpurify-{secrets.token_hex(8)}.part")
    try:
        if checkpoint.parts:
            _write_folder(checkpoint, temporary)
        else:
            _write_file(checkpoint, temporary)
        digest = _verified(checkpoint, temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise TrainingError(f"{path}: cannot be written: {reason or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
        shutil.rmtree(temporary, ignore_errors=True)
    return digest


def _is_file(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _write_folder(checkpoint: Checkpoint, path: Path) -> None:
    path.mkdir()
    for part in checkpoint.parts:
        _write_file(part, path / part.path.name)
    for name, content in checkpoint.carried.items():
        with (path / name).open("xb") as file:
            file.write(content)
            _sync(file)
    _sync_folder(path)


def _write_file(checkpoint: Checkpoint, path: Path) -> None:
    with path.open("xb") as file:
        _save(checkpoint, file)
        _sync(file)


def _sync(file: BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())


def _save(checkpoint: Checkpoint, file: BufferedWriter) -> None:
    if checkpoint.container == "safetensors":
        safetensors_file.save(checkpoint.tensors, checkpoint.metadata, file)
    elif checkpoint.container == "torch-zip":
        torch_file.save_zip(checkpoint.tree, file)
    else:
        torch_file.save_legacy(checkpoint.tree, file)


def _verified(checkpoint: Checkpoint, path: Path) -> str:
    """The hash of a file that was just written, once it has proved to hold the checkpoint."""
    try:
        again = read(path)
    except (CheckpointError, UnsafeInputError) as error:
        raise TrainingError(f"what was written cannot be read back: {error}") from error
    if not _equal(again, checkpoint):
        raise TrainingError(f"{path}: reads back differently from what was written")
    return again.sha256


def _equal(a: Checkpoint, b: Checkpoint) -> bool:
    if a.parts or b.parts:
        return (
            [part.path.name for part in a.parts] == [part.path.name for part in b.parts]
            and all(map(_equal, a.parts, b.parts))
            and a.carried == b.carried
        )
    return (
        a.container == b.container
        and a.wrapper == b.wrapper
        and a.metadata == b.metadata
        and same(a.tree, b.tree)
    )


def _sync_folder(folder: Path) -> None:
    """Makes the new name itself survive a power cut, where the system offers that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
