"""What a file is, by its first bytes: a suffix is a claim, and claims are not read."""

import os
import pickle
from io import BufferedReader
from typing import Literal

from sslpurify.errors import CheckpointError, UnsafeInputError

Kind = Literal["safetensors", "torch-zip", "torch-legacy", "pickle"]

LEGACY_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
"""The first pickle of every file that torch wrote before version 1.6."""

_HEAD = 4096
_NO_HEADER = 2**40
"""What eight letters of a text amount to as a number, at the least, and no header's length."""
_OTHERS = {
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"BZh": "a bzip2 archive: unpack it first",
    b"\xfd7zXZ": "an xz archive: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstandard archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x93NUMPY": "a numpy array, not a checkpoint",
    b"\x89HDF": "an HDF5 file (Keras?), not a PyTorch checkpoint",
    b"GGUF": "a GGUF file of a language model, not a checkpoint of an image encoder",
    b"\x89PNG": "a PNG image, not a checkpoint",
    b"\xff\xd8\xff": "a JPEG image, not a checkpoint",
    b"%PDF": "a PDF document, not a checkpoint",
    b"PK\x05\x06": "an empty zip archive",
}
_TAR_MAGIC = slice(257, 262)


def sniff(file: BufferedReader) -> Kind:
    """Says what an open file is; ``"pickle"`` is a pickle that torch did not write.

    Raises:
        CheckpointError: It is no checkpoint; the message says what it is instead.
        UnsafeInputError: It is torch's oldest format, a tar archive of pickles.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(_HEAD)
    file.seek(0)
    if not head:
        raise CheckpointError("the file is empty (0 bytes): download it again")
    if head.startswith(b"PK\x03\x04"):
        return "torch-zip"
    if head[1:].startswith(LEGACY_MAGIC[1:]) and head[0] == LEGACY_MAGIC[0]:
        return "torch-legacy"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _NO_HEADER:
        return "safetensors"
    if head[_TAR_MAGIC] == b"ustar":
        raise UnsafeInputError(
            "a tar archive. If it is a checkpoint of torch 0.1, only running its pickles could "
            "read it, so it is refused: ask its publisher for a safetensors file. If it is a "
            "download that holds a checkpoint, unpack it first"
        )
    if head.startswith(b"\x93NUMPY") and b"O" in head[:128]:
        raise UnsafeInputError(
            "a numpy array of pickled Python objects ('object' dtype), which only running them "
            "could read; nothing was run"
        )
    _refuse_text(head, size)
    for magic, description in _OTHERS.items():
        if head.startswith(magic):
            raise CheckpointError(description)
    return "pickle"


def _refuse_text(head: bytes, size: int) -> None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:200].lower()
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"a git-LFS pointer of {size} bytes, not the file it stands for: run `git lfs pull`"
        )
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        raise CheckpointError(
            "a web page, not a checkpoint: the download gave an error or login page instead of "
            "the file"
        )
    if start.startswith((b'{"', b"{\n", b"{ ", b"[")):
        raise CheckpointError("a JSON or text file, not a checkpoint")
