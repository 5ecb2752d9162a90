"""Whether the tensors of a state dict can be weights of a network."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sslpurify.errors import CheckpointError
from sslpurify.statedict import listing

_DTYPES = frozenset(
    {
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    }
)


def require_usable(mapping: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, detached, after all of them were found to be usable weights.

    Entries that are no tensors (a module's extra state) are left out.

    Raises:
        CheckpointError: A key is no text; or a tensor is meta, sparse, complex, quantized or of
            another unusual dtype, holds NaN or infinity, or is a negative variance.
    """
    odd = [f"{key!r:.80} ({type(key).__name__})" for key in mapping if not isinstance(key, str)]
    if odd:
        raise CheckpointError(f"a state dict has names, this one has keys that are no text: {odd}")
    tensors = {name: value.detach() for name, value in mapping.items() if isinstance(value, Tensor)}
    kinds = {name: kind for name, tensor in tensors.items() if (kind := _unusable(tensor))}
    if kinds:
        raise CheckpointError(
            f"a network's weights are dense real tensors; not so {listing(kinds)} "
            f"({', '.join(sorted(set(kinds.values())))})"
        )
    _require_sane_values(tensors)
    return tensors


def _unusable(tensor: Tensor) -> str:
    if tensor.device.type == "meta":
        return "meta, without data"
    if tensor.layout != torch.strided:
        return "sparse"
    return "" if tensor.dtype in _DTYPES else str(tensor.dtype).removeprefix("torch.")


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
