"""The algebra of weights: state dicts go in, new ones come out, nothing is changed in place.

Interpolating, adding and measuring concern floating point tensors only; integers (BatchNorm's
``num_batches_tracked``) are carried along. Unless a function says otherwise its result shares no
memory with its arguments, so what is done to the result never reaches the weights it came from.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from sslpurify.types import State


def listing(names: Iterable[str], limit: int = 5) -> str:
    """Names for an error message: quoted, escaped, shortened, and never more than ``limit``.

    Example:
        >>> listing(["conv1.weight", "bn1.bias", "fc.bias"], limit=2)
        "'conv1.weight', 'bn1.bias' and 1 more"
    """
    found = list(names)
    shown = [repr(name if len(name) <= 80 else f"{name[:77]}...") for name in found[:limit]]
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(shown) + more


def clone(state: State) -> dict[str, Tensor]:
    """An independent copy, detached from autograd."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def joined(parts: Mapping[str, State]) -> dict[str, Tensor]:
    """Several states as one, each name below its part's: ``part/name``.

    Args:
        parts: By names without a slash; names within a part may have some.
    """
    return {f"{part}/{name}": its for part, state in parts.items() for name, its in state.items()}


def parted(state: State) -> defaultdict[str, dict[str, Tensor]]:
    """What `joined` made one, apart again; a part that had no tensors is empty."""
    parts: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for path, tensor in state.items():
        part, _, name = path.partition("/")
        parts[part][name] = tensor
    return parts


def require_same_keys(a: State, b: State) -> None:
    """Makes sure that two states hold the same tensor names and shapes.

    Raises:
        ValueError: They differ; the message lists the names and shapes that do.
    """
    shapes = [
        f"{name!r} is {tuple(a[name].shape)} in the first and {tuple(b[name].shape)} in the second"
        for name in a
        if name in b and a[name].shape != b[name].shape
    ]
    only_a, only_b = (
        [name for name in one if name not in other] for one, other in ((a, b), (b, a))
    )
    problems = (
        *([f"only in the first: {listing(only_a)}"] if only_a else []),
        *([f"only in the second: {listing(only_b)}"] if only_b else []),
        *shapes[:5],
        *([f"{len(shapes) - 5} more differ in shape"] if len(shapes) > 5 else []),
    )
    if problems:
        raise ValueError(f"the two states do not match: {'; '.join(problems)}")


def floating(state: State) -> dict[str, Tensor]:
    """The floating point tensors of ``state``: a selection, which shares its memory."""
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}


def lerp(a: State, b: State, t: float) -> dict[str, Tensor]:
    """The point ``(1 - t) a + t b``, in the dtypes of ``a``; exactly the ends at t = 0 and t = 1.

    Integer tensors are taken from ``a``. Differentiable with respect to both states.

    Raises:
        ValueError: The states differ in names or shapes.
    """
    require_same_keys(a, b)
    return {
        name: torch.lerp(start, b[name].to(start.dtype), t)
        if start.is_floating_point()
        else start.clone()
        for name, start in a.items()
    }


def combine(terms: Sequence[tuple[float, State]]) -> dict[str, Tensor]:
    """The weighted sum of states, in the dtypes of the first; half precision is summed in float32.

    Integer tensors are taken from the first state. Differentiable.

    Raises:
        ValueError: There are no terms, or the states differ in names or shapes.
    """
    if not terms:
        raise ValueError("cannot combine nothing: give at least one (weight, state) pair")
    first = terms[0][1]
    for _, state in terms[1:]:
        require_same_keys(first, state)
    return {
        name: _weighted_sum([(weight, state[name]) for weight, state in terms])
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in first.items()
    }


def _weighted_sum(terms: list[tuple[float, Tensor]]) -> Tensor:
    dtype = terms[0][1].dtype
    wide = torch.promote_types(dtype, torch.float32)
    weight, tensor = terms[0]
    total = weight * tensor.to(wide)
    for weight, tensor in terms[1:]:
        total = total + weight * tensor.to(wide)
    return total.to(dtype)


def distance(a: State, b: State) -> float:
    """The L2 distance over all floating point tensors, computed in float64.

    Raises:
        ValueError: The states differ in names or shapes.
    """
    require_same_keys(a, b)
    squares = (
        (tensor.detach().double() - b[name].detach().double()).square().sum()
        for name, tensor in floating(a).items()
    )
    return math.sqrt(math.fsum(square.item() for square in squares))


def cosine(a: State, b: State) -> float:
    """The cosine in [-1, 1] between all floating point tensors as one vector, in float64.

    Raises:
        ValueError: The states differ in names or shapes, or one of them is all zero.
    """
    require_same_keys(a, b)
    pairs = [(x.detach().double(), b[name].detach().double()) for name, x in floating(a).items()]
    lengths = math.sqrt(math.fsum(x.square().sum().item() for x, _ in pairs)) * math.sqrt(
        math.fsum(y.square().sum().item() for _, y in pairs)
    )
    if lengths == 0:
        raise ValueError("the cosine with weights that are all zero is not defined")
    return max(-1.0, min(1.0, math.fsum((x * y).sum().item() for x, y in pairs) / lengths))


def cast(state: State, dtype: torch.dtype) -> dict[str, Tensor]:
    """A copy whose floating point tensors are of ``dtype``; integers stay as they are."""
    return {
        name: tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in state.items()
    }


def cast_like(state: State, like: State) -> dict[str, Tensor]:
    """A copy of ``state`` in which every tensor has the dtype it has in ``like``.

    Raises:
        ValueError: The states differ in names or shapes.
    """
    require_same_keys(state, like)
    return {name: tensor.to(like[name].dtype, copy=True) for name, tensor in state.items()}


def identical(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same dtype, shape and bits (so NaN equals itself, 0 not -0)."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bytes(a), _bytes(b))


def digest(state: State) -> str:
    """The sha256 of the names, dtypes, shapes and bytes, whatever the order of the names."""
    hashed = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        hashed.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        hashed.update(_bytes(tensor).numpy().data)
    return hashed.hexdigest()


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
