"""From weights to a file in the format they came in, whole or not at all.

The new file is the old one with other bytes where its tensors lie. So whatever else it holds stays
as it is, bit for bit: an optimizer's state, settings, classes that are not installed here.
"""

import os
import secrets
import shutil
import zlib
from contextlib import suppress
from io import BufferedRandom, BufferedWriter
from pathlib import Path

from sslpurify.checkpoint import safetensors_file
from sslpurify.checkpoint.checkpoint import Checkpoint
from sslpurify.checkpoint.read import read
from sslpurify.checkpoint.stored import Span
from sslpurify.checkpoint.weights import data
from sslpurify.errors import CheckpointError, ConfigError, TrainingError, UnsafeInputError
from sslpurify.statedict import identical


def write(checkpoint: Checkpoint, path: Path) -> str:
    """Writes a checkpoint in its own container; returns the sha256 of the new file or folder.

    Only the bytes of the tensors differ from the source's, and checksums of them. A folder keeps
    its partition into weight files and the small files beside them. All appears under its name
    only after it was written, flushed to the disk, read back and found equal; when any of that
    fails nothing is left behind, and a file that was there before stays.

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
    """Writes the file it came from with other bytes where its tensors lie, and nowhere else."""
    with path.open("x+b") as file:
        if checkpoint.source is None:
            safetensors_file.save(checkpoint.tensors, checkpoint.metadata, file)
        else:
            checkpoint.source.copy(file, checkpoint.sha256)
        for name, span in checkpoint.spans.items():
            _put(file, span, data(checkpoint.tensors[name].untyped_storage()))
        _sync(file)


def _put(file: BufferedRandom, span: Span, content: memoryview) -> None:
    if len(content) != span.size:
        raise ValueError("a tensor that is not as large as the one it stands for")
    file.seek(span.start)
    if memoryview(file.read(span.size)) == content:
        return
    file.seek(span.start)
    file.write(content)
    for place in span.checksums:
        file.seek(place)
        file.write(zlib.crc32(content).to_bytes(4, "little"))


def _sync(file: BufferedWriter | BufferedRandom) -> None:
    file.flush()
    os.fsync(file.fileno())


def _verified(checkpoint: Checkpoint, path: Path) -> str:
    """The hash of what was just written, once it has proved to hold the checkpoint."""
    try:
        again = read(path, allow_torchscript=checkpoint.container == "torchscript")
    except (CheckpointError, UnsafeInputError) as error:
        raise TrainingError(f"what was written cannot be read back: {error}") from error
    equal = (
        again.container == checkpoint.container
        and again.wrapper == checkpoint.wrapper
        and again.metadata == checkpoint.metadata
        and again.carried == checkpoint.carried
        and [p.path.name for p in again.parts] == [p.path.name for p in checkpoint.parts]
        and list(again.tensors) == list(checkpoint.tensors)
        and all(map(identical, again.tensors.values(), checkpoint.tensors.values()))
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
