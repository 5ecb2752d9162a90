"""The symmetry of an architecture as data: which axes move together, and where to watch them."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["inner", "residual", "heads", "qk", "vo"]
Side = Literal["input", "output"]
ActivationLayout = Literal["channels-first", "channels-last"]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Touch:
    """One place in the weights that a group of units occupies.

    Unit ``i`` is the positions ``offset + i * block`` to ``offset + (i + 1) * block`` along ``dim``
    of the tensor ``name``.

    Args:
        name: Tensor of the state dict.
        dim: Axis, counted from 0.
        offset: Where the first unit begins (fused q|k|v, one head of many).
        block: Positions per unit (an attention head is a block of its dimensions).
        select: ``(dim2, start, stop)``: only this range of another axis takes part.
    """

    name: str
    dim: int
    offset: int = 0
    block: int = 1
    select: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Fixed:
    """An axis whose positions stay where they are on purpose, save those that a group touches."""

    name: str
    dim: int


@dataclass(frozen=True)
class Linear:
    """Rows ``start`` to ``stop`` of a weight (and bias) of the state dict, applied to an input.

    Fused attention shows its q, k and v to no hook; they are computed again from its input.
    """

    weight: str
    bias: str | None
    start: int
    stop: int


@dataclass(frozen=True)
class Probe:
    """Where activations are watched.

    Args:
        module: Name of the module. Prefer the input of the module that *reads* the units: its
            first positional argument is complete, where the output of a module may still be
            changed in place (ReLU) and a shared ReLU runs several times.
        side: Its ``"input"`` or its ``"output"``.
        layout: ``"channels-first"`` for (n, c, ...), ``"channels-last"`` for (..., c).
        linear: Applied to the activations before they are looked at.
    """

    module: str
    side: Side = "input"
    layout: ActivationLayout = "channels-first"
    linear: Linear | None = None


@dataclass(frozen=True)
class View:
    """Where a group's units lie on the channel axis of a probe; as in `Touch`."""

    probe: Probe
    offset: int = 0
    block: int = 1


@dataclass(frozen=True)
class Group:
    """Units that may be reordered without changing the function, if all touches move together."""

    name: str
    size: int
    touches: tuple[Touch, ...]
    probes: tuple[View, ...]
    kind: Kind


@dataclass(frozen=True)
class PermutationSpec:
    """All permutation groups of an architecture.

    Args:
        groups: In the order in which they are applied. Each step keeps the function by itself, so
            that a group within a block (the dimensions of a head) may follow the group that moves
            the blocks (the heads).
        fixed: Axes that are never permuted: the embedding, image channels, kernels.
    """

    groups: tuple[Group, ...]
    fixed: tuple[Fixed, ...] = ()

    def select(self, kinds: Collection[Kind]) -> "PermutationSpec":
        """The groups of these kinds; whatever only the other groups move becomes fixed."""
        return self._keep(group for group in self.groups if group.kind in kinds)

    def outside(self, names: Collection[str]) -> "PermutationSpec":
        """The groups that touch no tensor of these names or below them; the rest becomes fixed."""
        below = tuple(f"{name}." for name in names)
        return self._keep(
            group
            for group in self.groups
            if not any(t.name in names or t.name.startswith(below) for t in group.touches)
        )

    def _keep(self, groups: Iterable[Group]) -> "PermutationSpec":
        kept = tuple(groups)
        spans, remaining = _spans(self.groups), _spans(kept)
        lost = (Fixed(*axis) for axis, span in spans.items() if span != remaining.get(axis))
        return PermutationSpec(kept, tuple(dict.fromkeys(chain(self.fixed, lost))))

    def problems(self, shapes: Shapes) -> list[str]:
        """Everything that is wrong between this specification and an architecture's tensors.

        Args:
            shapes: Shape of every floating tensor (parameters and buffers) of the state dict.

        Returns:
            One sentence per problem, naming group and tensor; empty if the specification is
            consistent and complete: every axis longer than 1 is permuted in full or fixed.
        """
        names = [group.name for group in self.groups]
        repeated = sorted({name for name in names if names.count(name) > 1})
        misfits = [*_misfits(self, shapes)]
        if misfits:  # overlap and completeness mean nothing before every touch fits its tensor
            return [*(f"two groups are called {name!r}" for name in repeated), *misfits]
        return [
            *(f"two groups are called {name!r}" for name in repeated),
            *_overlaps(self.groups, shapes),
            *_coverage(self, shapes),
        ]


def fixed_axes(shapes: Shapes) -> tuple[Fixed, ...]:
    """Every axis of these tensors as fixed: for parts that no group touches, like a head."""
    return tuple(Fixed(name, dim) for name, dim in _long_axes(shapes))


def _long_axes(shapes: Shapes) -> Iterator[tuple[str, int]]:
    for name, shape in shapes.items():
        yield from ((name, dim) for dim, length in enumerate(shape) if length > 1)


def _spans(groups: Iterable[Group]) -> dict[tuple[str, int], set[tuple[object, int]]]:
    """The positions that groups move, by tensor and axis."""
    spans: dict[tuple[str, int], set[tuple[object, int]]] = {}
    for group in groups:
        for touch in group.touches:
            positions = range(touch.offset, touch.offset + group.size * touch.block)
            spans.setdefault((touch.name, touch.dim), set()).update(
                (touch.select, position) for position in positions
            )
    return spans


def _misfits(spec: PermutationSpec, shapes: Shapes) -> Iterator[str]:
    for group in spec.groups:
        where = f"group {group.name!r}"
        if group.size < 1 or not group.touches or not group.probes:
            yield f"{where} needs a size of at least 1, a touch and a probe"
        for touch in group.touches:
            yield from (f"{where}: {cause}" for cause in _touch_misfit(touch, group.size, shapes))
        for view in group.probes:
            yield from (f"{where}: {cause}" for cause in _view_misfit(view, group.size, shapes))
    for fixed in spec.fixed:
        if not 0 <= fixed.dim < len(shapes.get(fixed.name, ())):
            yield f"fixed axis {fixed.dim} of {fixed.name!r} does not exist"


def _touch_misfit(touch: Touch, size: int, shapes: Shapes) -> Iterator[str]:
    shape = shapes.get(touch.name)
    if shape is None:
        yield f"there is no tensor {touch.name!r}"
    elif not 0 <= touch.dim < len(shape):
        yield f"{touch.name!r} of shape {shape} has no axis {touch.dim}"
    else:
        if not _fits(touch.offset, touch.block, size, shape[touch.dim]):
            yield (
                f"{size} units of {touch.block} from {touch.offset} on do not fit axis "
                f"{touch.dim} of {touch.name!r}, which has {shape[touch.dim]} positions"
            )
        if touch.select is not None:
            other, start, stop = touch.select
            if other == touch.dim or not 0 <= other < len(shape):
                yield f"{touch.name!r}: {touch.select} selects along no other axis"
            elif not 0 <= start < stop <= shape[other]:
                yield f"{touch.name!r}: {touch.select} lies outside axis {other}"


def _view_misfit(view: View, size: int, shapes: Shapes) -> Iterator[str]:
    linear = view.probe.linear
    if linear is None:
        return  # the length of an activation's axis is known to the forward pass only
    rows = (shapes.get(linear.weight) or (0,))[0]
    if not 0 <= linear.start < linear.stop <= rows:
        yield f"the probe's rows {linear.start} to {linear.stop} are not in {linear.weight!r}"
    elif not _fits(view.offset, view.block, size, linear.stop - linear.start):
        yield f"its units do not fit the {linear.stop - linear.start} rows of its probe"
    if linear.bias is not None and shapes.get(linear.bias) != (rows,):
        yield f"the probe's bias {linear.bias!r} does not fit {linear.weight!r}"


def _fits(offset: int, block: int, size: int, length: int) -> bool:
    return offset >= 0 and block >= 1 and offset + size * block <= length


def _overlaps(groups: Iterable[Group], shapes: Shapes) -> Iterator[str]:
    for group in groups:
        for name, dim in dict.fromkeys((touch.name, touch.dim) for touch in group.touches):
            if bool((_counts((group,), name, dim, shapes[name]) > 1).any()):
                yield f"group {group.name!r} touches positions of axis {dim} of {name!r} twice"


def _coverage(spec: PermutationSpec, shapes: Shapes) -> Iterator[str]:
    touching: dict[str, list[Group]] = {}
    for group in spec.groups:
        for name in dict.fromkeys(touch.name for touch in group.touches):
            touching.setdefault(name, []).append(group)
    fixed = set(spec.fixed)
    for name, dim in _long_axes(shapes):
        counts = _counts(touching.get(name, ()), name, dim, shapes[name])
        complete, named = bool((counts > 0).all()), Fixed(name, dim) in fixed
        if complete and named:
            yield f"axis {dim} of {name!r} is fixed and permuted as well"
        elif not complete and not named:
            yield f"axis {dim} of {name!r} is neither permuted in full nor fixed"


def _counts(groups: Iterable[Group], name: str, dim: int, shape: tuple[int, ...]) -> Tensor:
    """How often each position of an axis is touched, spread over the axes that select."""
    touches = [
        (touch, group.size)
        for group in groups
        for touch in group.touches
        if (touch.name, touch.dim) == (name, dim)
    ]
    spread = {dim} | {touch.select[0] for touch, _ in touches if touch.select is not None}
    counts = torch.zeros([n if axis in spread else 1 for axis, n in enumerate(shape)])
    for touch, size in touches:
        region = counts.narrow(dim, touch.offset, size * touch.block)
        if touch.select is not None:
            other, start, stop = touch.select
            region = region.narrow(other, start, stop - start)
        region.add_(1)
    return counts
