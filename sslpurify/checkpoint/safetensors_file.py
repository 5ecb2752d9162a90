"""The safetensors container: where its tensors lie.

The format's own rules are kept strictly: the data follows the header without a hole or an overlap,
each shape fits its bytes, no key stands twice. (The library lets the last one of two keys win.)
"""

import json
import math
import os
from collections.abc import Mapping
from io import BufferedRandom, BufferedReader
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sslpurify.checkpoint import strict_json
from sslpurify.checkpoint.rebuild import described
from sslpurify.checkpoint.stored import Contents, Span, Storage, Stored
from sslpurify.errors import CheckpointError, UnsafeInputError
from sslpurify.statedict import listing

_MAX_HEADER = 16 * 1024**2
_MAX_RANK = 64
_ENTRY = {"dtype", "shape", "data_offsets"}
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def load(file: BufferedReader) -> Contents:
    """The tensors in the order of the header, and the metadata.

    Raises:
        CheckpointError: The file is truncated, damaged or ambiguous.
        UnsafeInputError: The header is larger than any encoder needs.
    """
    size = file.seek(0, os.SEEK_END)
    header, start = _header(file, size)
    metadata = header.pop("__metadata__", {})
    if not _is_metadata(metadata):
        raise CheckpointError("a damaged safetensors header: its metadata is not text")
    tree: dict[str, Stored] = {}
    spans: dict[str, Span] = {}
    for name, entry in header.items():
        try:
            tree[name], (begin, end) = _stored(name, entry)
        except (ValueError, TypeError, LookupError) as error:
            raise CheckpointError(
                f"a damaged safetensors header: {listing([name])} is described by "
                f"{str(entry)[:160]!r}"
            ) from error
        spans[name] = Span(start + begin, end - begin)
    _require_covered(spans, start, size)
    return Contents("safetensors", tree, spans, (), metadata)


def _header(file: BufferedReader, size: int) -> tuple[dict[str, Any], int]:
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
    return strict_json.parse(
        file.read(length), "a damaged safetensors file: its header"
    ), 8 + length


def _is_metadata(metadata: Any) -> bool:
    return isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())


def _stored(name: str, entry: Mapping[str, Any]) -> tuple[Stored, tuple[int, int]]:
    shape, (begin, end) = entry["shape"], entry["data_offsets"]
    sizes = [*shape, begin, end]
    if len(shape) > _MAX_RANK or any(type(n) is not int or not 0 <= n < 2**48 for n in sizes):
        raise ValueError("sizes are numbers")
    storage = Storage(name, _DTYPES[entry["dtype"]], math.prod(shape))
    if end - begin != storage.size or set(entry) != _ENTRY:
        raise ValueError("the shape does not fit the data")
    stride = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return described(storage, 0, tuple(shape), stride), (begin, end)


def _require_covered(spans: Mapping[str, Span], start: int, size: int) -> None:
    edges = sorted((span.start, span.start + span.size) for span in spans.values())
    end = max((edge for _, edge in edges), default=start)
    if end > size:
        raise CheckpointError(
            f"a truncated safetensors file: {size:,} of {end:,} bytes: download it again"
        )
    whole = [(start, start), *edges, (size, size)]
    if any(before[1] != after[0] for before, after in pairwise(whole)):
        raise CheckpointError(
            "a damaged safetensors file: its tensors overlap, or leave bytes that belong to none"
        )


def save(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], file: BufferedRandom) -> None:
    """Writes tensors in the order given, so that the same content gives the same bytes."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
