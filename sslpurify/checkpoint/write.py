"""From weights to a file in the format they came in, whole or not at all."""

import os
import secrets
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path

from sslpurify.checkpoint import safetensors_file, torch_file
from sslpurify.checkpoint.checkpoint import Checkpoint
from sslpurify.checkpoint.read import read
from sslpurify.checkpoint.tree import same
from sslpurify.errors import CheckpointError, ConfigError, TrainingError, UnsafeInputError


def write(checkpoint: Checkpoint, path: Path) -> str:
    """Writes a checkpoint in its own container; returns the sha256 of the new file.

    The same content gives the same bytes, whatever the name. The file appears under its name only
    after it was written, flushed to the disk, read back and found equal; when any of that fails
    nothing is left behind, and a file that was there before stays.

    Args:
        checkpoint: What to write.
        path: Where to; its folder must exist, and it must not be the file the checkpoint came from.

    Raises:
        ConfigError: ``path`` is the source itself.
        TrainingError: The disk is full, or the file cannot be created, or reads back differently.
    """
    if _is_file(path, checkpoint.path):
        raise ConfigError(f"{path}: is the checkpoint that was read, which is never overwritten")
    temporary = path.with_name(f".sslpurify-{secrets.token_hex(8)}.part")
    try:
        with temporary.open("xb") as file:
            _save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        digest = _verified(checkpoint, temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise TrainingError(f"{path}: cannot be written: {reason or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return digest


def _is_file(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


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
    equal = (
        again.container == checkpoint.container
        and again.wrapper == checkpoint.wrapper
        and again.metadata == checkpoint.metadata
        and same(again.tree, checkpoint.tree)
    )
    if not equal:
        raise TrainingError(f"{path}: reads back differently from what was written")
    return again.sha256


def _sync_folder(folder: Path) -> None:
    """Makes the new name itself survive a power cut, where the system offers that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
