"""What a file holds as a tree: where the state dicts lie in it, and that it is bounded."""

import math
from collections.abc import Iterator
from typing import Any

from sslpurify.checkpoint.stored import Key, Stored
from sslpurify.errors import UnsafeInputError

Place = tuple[str, ...]
"""The keys that lead from the root of a tree to something in it."""

_MAX_DEPTH = 64
_MAX_ENTRIES = 200_000
_MAX_REPEATS = 4
_WRAPPER_DEPTH = 3
_WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "module", "net", "network", "encoder"),
    *("backbone", "student", "online", "weights", "params", "state_dict_ema", "model_ema"),
    *("ema", "teacher", "target"),
)
"""Names under which training code keeps the weights, those to prefer first."""


def walk(tree: object) -> Iterator[tuple[Place, Any]]:
    """The tensors and containers in a tree with their places; a shared container only once.

    Raises:
        UnsafeInputError: It is nested deeper than any checkpoint.
    """
    entered: set[int] = set()
    stack: list[tuple[Place, Any]] = [((), tree)]
    while stack:
        place, item = stack.pop()
        if id(item) in entered:
            continue
        if len(place) > _MAX_DEPTH:
            raise UnsafeInputError(f"it is nested more than {_MAX_DEPTH} levels deep")
        yield place, item
        children = _children(item)
        if children:
            entered.add(id(item))
            stack.extend(((*place, name), child) for name, child in reversed(children))


def _children(item: Any) -> list[tuple[str, Any]]:
    if isinstance(item, dict):
        children = [(key_text(key), value) for key, value in item.items() if _counts(value)]
    elif isinstance(item, (list, tuple)):
        children = [(str(place), value) for place, value in enumerate(item) if _counts(value)]
    else:
        children = []
    return children


def _counts(item: Any) -> bool:
    return isinstance(item, (Stored, dict, list, tuple))


def key_text(key: object) -> str:
    """A key as a message shows it; of one that is no text at most its value."""
    if isinstance(key, str):
        return key
    value = key.value if isinstance(key, Key) else key
    short = isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 2**64)
    return repr(value) if short else type(value).__name__


def spoken(place: Place) -> str:
    """A place for an error message, escaped and shortened."""
    return repr(".".join(place)[:120]) if place else "the file"


def require_bounded(tree: object, size: int) -> None:
    """Makes sure that the tensors hold no more data than the file, before any is computed with.

    A tensor of stride 0 declares gigabytes in a file of a few kilobytes.

    Args:
        tree: What a file holds.
        size: The bytes of that file.

    Raises:
        UnsafeInputError: A tensor, or all together, would need more memory than the file can hold.
    """
    declared = 0
    for place, item in walk(tree):
        if not isinstance(item, Stored) or item.storage is None:
            continue
        needed = math.prod(item.shape) * item.dtype.itemsize
        declared += needed
        if needed > item.storage.size:
            raise UnsafeInputError(
                f"tensor {spoken(place)} declares {needed:,} bytes but stores "
                f"{item.storage.size:,}: it would exhaust memory"
            )
    if declared > _MAX_REPEATS * size:
        raise UnsafeInputError(
            f"its tensors declare {declared:,} bytes, the file has {size:,}: they would exhaust "
            "memory"
        )


def state_dicts(tree: object) -> list[Place]:
    """Where mappings with tensors lie, the one to use first.

    Those with less than half as many tensors as the largest, and the optimizer's, do not count.
    Names that training code gives to weights come first, then the larger.

    Raises:
        UnsafeInputError: Mappings that hold one another many times over would take for ever.
    """
    sizes: dict[Place, int] = {}
    entries = 0
    queue: list[tuple[Place, Any]] = [((), tree)]
    while queue:
        place, item = queue.pop()
        if not isinstance(item, dict):
            continue
        sizes[place] = sum(isinstance(value, Stored) for value in item.values())
        entries += 1 + len(item)
        if entries > _MAX_ENTRIES:
            raise UnsafeInputError(f"its mappings have more than {_MAX_ENTRIES:,} entries in all")
        if len(place) < _WRAPPER_DEPTH:
            queue += [
                ((*place, key), value)
                for key, value in item.items()
                if isinstance(key, str) and not key.startswith("optim")
            ]
    largest = max(sizes.values(), default=0)
    found = [place for place, count in sizes.items() if largest and 2 * count >= largest]
    return sorted(found, key=lambda place: (_preference(place), -sizes[place], place))


def _preference(place: Place) -> tuple[int, ...]:
    unknown = len(_WRAPPERS)
    ranks = (_WRAPPERS.index(name) if name in _WRAPPERS else unknown for name in place)
    return tuple(ranks) if place else (unknown,)


def at(tree: Any, place: Place) -> dict[Any, Any]:
    """The mapping at a place that ``state_dicts`` found."""
    for key in place:
        tree = tree[key]
    return tree
