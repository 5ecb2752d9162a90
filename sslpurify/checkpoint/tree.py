"""What a checkpoint holds: a tree of plain data and tensors, and the state dicts in it."""

import itertools
import math
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sslpurify.errors import CheckpointError, UnsafeInputError
from sslpurify.statedict import identical

Place = tuple[str, ...]
"""The keys that lead from the root of a tree to something in it."""

_MAX_DEPTH = 64
_MAX_ENTRIES = 500_000
_MAX_REPEATS = 4
_WRAPPER_DEPTH = 3
_WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "module", "net", "network", "encoder"),
    *("backbone", "student", "online", "weights", "params", "state_dict_ema", "model_ema"),
    *("ema", "teacher", "target"),
)
"""Names under which training code keeps the weights, those to prefer first."""
_MAPPINGS = (dict, OrderedDict, Counter)
_SEQUENCES = (list, tuple, torch.Size)
_KEYS = (str, bytes, int, float, complex, bool, type(None))
_LEAVES = (*_KEYS, torch.device, torch.dtype)
_TENSORS = (Tensor, torch.nn.Parameter)  # compared by type: torch's isinstance is slow
_LAYOUTS = (torch.strided, torch.sparse_coo)


def walk(tree: object) -> Iterator[tuple[Place, Any]]:
    """Everything in a tree with its place, depth first; a shared container only once.

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
    if isinstance(item, _MAPPINGS):
        return [(_text(key), value) for key, value in dict.items(item)] + [
            (f".{name}", value) for name, value in _attributes(item).items()
        ]
    if isinstance(item, _SEQUENCES):
        return [(str(index), value) for index, value in enumerate(item)]
    return []


def _attributes(mapping: dict[Any, Any]) -> dict[str, Any]:
    """What torch hangs on a state dict: the versions of its modules, as ``_metadata``."""
    return vars(mapping) if isinstance(mapping, (OrderedDict, Counter)) else {}


def _text(key: object) -> str:
    return key if isinstance(key, str) else repr(key)


def spoken(place: Place) -> str:
    """A place for an error message, escaped and shortened."""
    return repr(".".join(place)[:120]) if place else "the file"


def require_data(tree: object) -> None:
    """Makes sure that a tree holds plain data and tensors only.

    Raises:
        CheckpointError: It holds something else; the message says where.
        UnsafeInputError: It is nested deeper than any checkpoint.
    """
    for place, item in walk(tree):
        odd = _odd(item)
        if odd:
            raise CheckpointError(f"{spoken(place)} holds {odd}, which is no weight and no setting")


def _odd(item: Any) -> str:
    """What is neither plain data nor a tensor in ``item`` itself; empty when nothing is."""
    kind = type(item)
    if kind in _MAPPINGS:
        if _attributes(item).keys() - {"_metadata"}:
            return "a dictionary with attributes"
        return next((f"a {type(key).__name__} as a key" for key in item if not _is_key(key)), "")
    if kind is set:
        return next((f"a set of {type(key).__name__}" for key in item if not _is_key(key)), "")
    if kind in _TENSORS:
        plain = item.layout in _LAYOUTS and not item.is_quantized
        return "" if plain else f"a tensor of {item.dtype}, {item.layout}"
    return "" if kind in _LEAVES or kind in _SEQUENCES else f"a {kind.__name__}"


def _is_key(key: object) -> bool:
    parts = key if isinstance(key, tuple) else (key,)
    return all(type(part) in _KEYS for part in parts)


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
    stored: dict[int, int] = {}
    for place, item in walk(tree):
        for part in _parts(item):
            needed = math.prod(part.shape) * part.element_size()
            declared += needed
            storage = part.untyped_storage()
            stored[storage.data_ptr()] = storage.nbytes()
            if needed > storage.nbytes():
                raise UnsafeInputError(
                    f"tensor {spoken(place)} declares {needed:,} bytes but stores "
                    f"{storage.nbytes():,}: it would exhaust memory"
                )
    if declared > _MAX_REPEATS * size or sum(stored.values()) > size:
        raise UnsafeInputError(
            f"its tensors declare {max(declared, sum(stored.values())):,} bytes, the file has "
            f"{size:,}: they would exhaust memory"
        )


def _parts(item: Any) -> tuple[Tensor, ...]:
    """The dense tensors that a tensor consists of; nothing else has any."""
    if type(item) not in _TENSORS or item.device.type == "meta":
        return ()
    if item.layout == torch.sparse_coo:
        # Not coalesced, which would compute with tensors that nothing has measured yet.
        whole = item.detach()
        return (whole._indices(), whole._values())  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return (item.detach(),)


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
        if not isinstance(item, _MAPPINGS):
            continue
        sizes[place] = sum(type(value) in _TENSORS for value in dict.values(item))
        entries += 1 + len(item)
        if entries > _MAX_ENTRIES:
            raise UnsafeInputError(f"its mappings have more than {_MAX_ENTRIES:,} entries in all")
        if len(place) < _WRAPPER_DEPTH:
            queue += [
                ((*place, key), value)
                for key, value in dict.items(item)
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


def updated(tree: dict[Any, Any], place: Place, values: Mapping[str, Any]) -> dict[Any, Any]:
    """A tree with new values under existing keys of the mapping at ``place``; the rest is shared.

    Order, types and torch's ``_metadata`` of the mappings on the way are kept.
    """
    if place:
        values = {place[0]: updated(tree[place[0]], place[1:], values)}
    copy = type(tree)()
    for key, value in dict.items(tree):
        copy[key] = values.get(key, value) if isinstance(key, str) else value
    _attributes(copy).update(_attributes(tree))
    return copy


def same(a: object, b: object) -> bool:
    """Whether two trees hold the same types, keys in the same order, values and tensor bits."""
    pairs = itertools.zip_longest(walk(a), walk(b), fillvalue=(("missing",), None))
    return all(there == here and _same_item(x, y) for (there, x), (here, y) in pairs)


def _same_item(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if type(a) in _TENSORS:
        return (
            (a.dtype, a.shape, a.layout, a.requires_grad)
            == (b.dtype, b.shape, b.layout, b.requires_grad)
            and a.device == b.device
            and all(identical(x, y) for x, y in zip(_parts(a), _parts(b), strict=True))
        )
    if isinstance(a, (*_MAPPINGS, *_SEQUENCES)):
        return len(a) == len(b)
    return a == b or (a != a and b != b)
