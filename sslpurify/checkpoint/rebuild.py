"""The functions with which pickles of torch rebuild tensors, as descriptions of these tensors."""

from collections.abc import Callable
from typing import Any

from sslpurify.checkpoint.names import DTYPES
from sslpurify.checkpoint.stored import Name, Storage, Stored

_MAX_RANK = 64
_MAX_NUMBER = 2**48


def described(
    storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], oddity: str = ""
) -> Stored:
    """A tensor in a storage.

    Raises:
        ValueError: It would reach out of the storage, or is described by something else than
            numbers.
    """
    numbers = (offset, *shape, *stride)
    if any(type(n) is not int or not 0 <= n < _MAX_NUMBER for n in numbers):
        raise ValueError("a tensor is described by sizes, and these are none")
    if len(shape) != len(stride) or len(shape) > _MAX_RANK:
        raise ValueError("a tensor needs a stride for each of its axes")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if 0 not in shape and last >= storage.elements:
        raise ValueError("a tensor that reaches out of its storage")
    return Stored(storage, storage.dtype, offset, tuple(shape), tuple(stride), oddity)


def _plain(storage: Storage, offset: int, shape: Any, stride: Any, *rest: Any) -> Stored:
    # The last of the rest is a dictionary of bits (conj, neg) that say how to read the numbers.
    flagged = len(rest) == 3 and bool(rest[2])
    return described(storage, offset, shape, stride, "conjugated or negated" if flagged else "")


def _of_dtype(
    storage: Storage, offset: int, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Name
) -> Stored:
    """Torch keeps dtypes that have no type of storage as bytes."""
    kind = DTYPES[dtype.text]
    typed = Storage(storage.key, kind, storage.size // kind.itemsize)
    return described(typed, offset, shape, stride)


def _parameter(tensor: Any, *_: Any) -> Stored:
    if not isinstance(tensor, Stored):
        raise TypeError("a parameter is a tensor")
    return tensor


def _sparse(_layout: Any, parts: tuple[Any, ...]) -> Stored:
    return Stored(None, parts[1].dtype, oddity="sparse")


def _quantized(storage: Storage, *_: Any) -> Stored:
    return Stored(storage, storage.dtype, oddity=str(storage.dtype).removeprefix("torch."))


def _meta(dtype: Name, *_: Any) -> Stored:
    return Stored(None, DTYPES[dtype.text], oddity="meta, without data")


def _subclass(function: Name, _type: Any, arguments: tuple[Any, ...], _state: Any) -> Any:
    """Of a tensor of another class the tensor in it."""
    return BUILDERS[function.text](*arguments)


BUILDERS: dict[str, Callable[..., Any]] = {
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _plain,
    "torch._utils._rebuild_tensor_v2": _plain,
    "torch._utils._rebuild_tensor_v3": _of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_qtensor": _quantized,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._tensor._rebuild_from_type_v2": _subclass,
}
"""Each raises ``ValueError``, ``TypeError``, ``LookupError`` or ``AttributeError`` when misused."""
