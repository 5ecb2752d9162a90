"""The safetensors container: read by its own library, written here.

The library's writer sorts the tensors and puts the metadata in an order that changes with every
process; this one keeps the order of the file it was read from, so that the same content gives the
same bytes.
"""

import json
import os
from collections.abc import Mapping
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sslpurify.errors import CheckpointError, UnsafeInputError

_MAX_HEADER = 16 * 1024**2
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def load(file: BufferedReader, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors in the order of the header, and the metadata.

    Raises:
        CheckpointError: The file is truncated, damaged or ambiguous.
        UnsafeInputError: The header is larger than any encoder needs.
    """
    header = _header(file)
    metadata = header.pop("__metadata__", {})
    try:
        # pread, because a mapped file would change the weights whenever the file changes.
        tensors = load_file(path, backend="pread")
        return {name: tensors[name] for name in header}, dict(metadata)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"a damaged safetensors file ({_short(error)})") from error


def _header(file: BufferedReader) -> dict[str, Any]:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length + 8 > size:
        raise CheckpointError(
            f"a truncated safetensors file: its header needs {length + 8:,} bytes, the file has "
            f"{size:,}: download it again"
        )
    if length > _MAX_HEADER:
        raise UnsafeInputError(
            f"a safetensors header of {length:,} bytes (an encoder's has less than a million, "
            f"the limit is {_MAX_HEADER:,}) would exhaust memory"
        )
    try:
        header = json.loads(file.read(length), object_pairs_hook=_unique)
        end = max(entry["data_offsets"][1] for entry in header.values() if _is_tensor(entry))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(f"a damaged safetensors header ({_short(error)})") from error
    if 8 + length + end > size:
        raise CheckpointError(
            f"a truncated safetensors file: {size:,} of {8 + length + end:,} bytes: "
            "download it again"
        )
    return header


def _is_tensor(entry: Mapping[str, Any]) -> bool:
    return "data_offsets" in entry


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            # Readers disagree on which of the two counts, so what is checked may not be what runs.
            raise CheckpointError(f"its header holds the key {key[:80]!r} twice")
        found[key] = value
    return found


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:160]!r}"


def save(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], file: BufferedWriter) -> None:
    """Writes tensors of the dtypes that ``read`` accepts, and metadata, in the order given."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
