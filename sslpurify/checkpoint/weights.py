"""From descriptions to weights, once they can be weights of a network."""

from collections.abc import Mapping
from io import BufferedReader
from typing import Any

import torch
from torch import Tensor

from sslpurify.checkpoint.stored import Key, Span, Stored
from sslpurify.checkpoint.tree import key_text
from sslpurify.errors import CheckpointError, UnsafeInputError
from sslpurify.statedict import listing

_MAX_TENSORS = 100_000
_DTYPES = frozenset(
    {
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    }
)


def require_dense(mapping: Mapping[Any, Any]) -> dict[str, Stored]:
    """The tensors of a state dict, after all of them were found to be described as weights are.

    Entries that are no tensors (a module's extra state) are left out.

    Raises:
        CheckpointError: A key is no text; or a tensor is meta, sparse, complex, quantized or of
            another unusual dtype.
        UnsafeInputError: There are more tensors than in any network.
    """
    odd = [f"{key_text(key)} ({_type(key)})" for key in mapping if not isinstance(key, str)]
    if odd:
        raise CheckpointError(
            f"a state dict has names, this one has {len(odd)} keys that are no text: "
            f"{', '.join(odd[:5])}"
        )
    tensors = {name: value for name, value in mapping.items() if isinstance(value, Stored)}
    if len(tensors) > _MAX_TENSORS:
        raise UnsafeInputError(
            f"{len(tensors):,} tensors: no encoder has more than {_MAX_TENSORS:,}"
        )
    kinds = {name: kind for name, tensor in tensors.items() if (kind := _unusable(tensor))}
    if kinds:
        raise CheckpointError(
            f"a network's weights are dense real tensors; not so {listing(kinds)} "
            f"({', '.join(sorted(set(kinds.values())))})"
        )
    return tensors


def _type(key: object) -> str:
    return type(key.value if isinstance(key, Key) else key).__name__


def _unusable(tensor: Stored) -> str:
    plain = tensor.dtype in _DTYPES and not tensor.oddity
    return "" if plain else tensor.oddity or str(tensor.dtype).removeprefix("torch.")


def load(
    file: BufferedReader, tensors: Mapping[str, Stored], spans: Mapping[str, Span]
) -> dict[str, Tensor]:
    """Tensors with their data, after it was found to be sane; ties and strides as in the file.

    Args:
        file: The file.
        tensors: What to load, by name.
        spans: The key of each storage to where it lies in the file.

    Raises:
        CheckpointError: A tensor holds NaN or infinity, or is a negative variance.
    """
    memory: dict[str, torch.UntypedStorage] = {}
    loaded: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        key = tensor.storage.key if tensor.storage else ""
        if key not in memory:
            memory[key] = _storage(file, spans[key])
        empty = torch.empty(0, dtype=tensor.dtype)
        loaded[name] = empty.set_(memory[key], tensor.offset, tensor.shape, tensor.stride)
    _require_sane_values(loaded)
    return loaded


def _storage(file: BufferedReader, span: Span) -> torch.UntypedStorage:
    storage = torch.UntypedStorage(span.size)
    if span.size:
        file.seek(span.start)
        if file.readinto(data(storage)) != span.size:
            raise CheckpointError("the file ends before its tensors do: download it again")
    return storage


def data(storage: torch.UntypedStorage) -> memoryview:
    """The bytes of a storage, to read or write."""
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy().data


def _require_sane_values(tensors: Mapping[str, Tensor]) -> None:
    broken: dict[str, str] = {}
    for name, tensor in tensors.items():
        count = tensor.numel() - int(torch.isfinite(tensor).sum())
        if count:
            broken[name] = f"{count:,} of {tensor.numel():,} values are NaN or infinite"
        elif name.rpartition(".")[2] == "running_var" and (tensor < 0).any():
            broken[name] = f"{int((tensor < 0).sum()):,} variances are negative"
    if broken:
        first = "; ".join(f"{name!r:.120}: {problem}" for name, problem in list(broken.items())[:5])
        more = f"; and {len(broken) - 5} more tensors" if len(broken) > 5 else ""
        raise CheckpointError(
            f"{len(broken)} damaged tensor(s): {first}{more}. No encoder works with these: ask "
            "its publisher for an intact file"
        )
