"""Permutations of an architecture's groups, and what they do to weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Int64
from torch import Tensor

from sslpurify.errors import CheckpointError
from sslpurify.symmetry.spec import Group, PermutationSpec, Touch
from sslpurify.types import State


@dataclass(frozen=True, eq=False)
class Permutation:
    """Reorderings of groups, applied one after the other.

    Args:
        steps: A group and its order: after the step, unit ``order[i]`` stands at position ``i``.

    Raises:
        ValueError: If an order is not a bijection of its group's units.
    """

    steps: tuple[tuple[Group, Tensor], ...]

    def __post_init__(self) -> None:
        for group, order in self.steps:
            if order.dtype != torch.int64 or not torch.equal(
                order.sort().values.cpu(), torch.arange(group.size)
            ):
                raise ValueError(f"group {group.name!r}: {_NOT_A_BIJECTION.format(group.size)}")

    @classmethod
    def identity(cls, spec: PermutationSpec) -> "Permutation":
        """The permutation that moves nothing."""
        return cls(tuple((group, torch.arange(group.size)) for group in spec.groups))

    @classmethod
    def random(cls, spec: PermutationSpec, generator: torch.Generator) -> "Permutation":
        """A uniform draw for every group, from a generator on the CPU."""
        return cls(
            tuple((group, torch.randperm(group.size, generator=generator)) for group in spec.groups)
        )

    @classmethod
    def from_json(cls, spec: PermutationSpec, data: object) -> "Permutation":
        """What `to_json` wrote, checked in full.

        Args:
            spec: The architecture's groups, by which the steps are looked up.
            data: As read by a JSON parser; nothing about it is taken for granted.

        Raises:
            CheckpointError: Naming the step that is malformed, of no known group, or no bijection.
        """
        groups = {group.name: group for group in spec.groups}
        return cls(tuple(_read_step(groups, *step) for step in enumerate(_listed(data))))

    def to_json(self) -> list[dict[str, Any]]:
        """The steps as plain data: ``[{"group": name, "order": [ints]}, ...]``."""
        return [{"group": group.name, "order": order.tolist()} for group, order in self.steps]

    def apply(self, state: State) -> dict[str, Tensor]:
        """The permuted weights: the same function with its units in another order.

        Args:
            state: Weights; not changed.

        Returns:
            A new state. Tensors that no step touches are the given ones, not copies.

        Raises:
            CheckpointError: If a tensor that a group touches is missing or too small.
        """
        result = dict(state)
        for group, order in self.steps:
            for touch in group.touches:
                if touch.name not in result:
                    raise CheckpointError(
                        f"cannot permute group {group.name!r}: the weights hold no {touch.name!r}"
                    )
                result[touch.name] = _permuted(result[touch.name], touch, order)
        return result

    def inverse(self) -> "Permutation":
        """The permutation that undoes this one, bit for bit."""
        return Permutation(tuple((group, order.argsort()) for group, order in self.steps[::-1]))

    def compose(self, first: "Permutation") -> "Permutation":
        """``a.compose(b)`` applies ``b``, then ``a``: the state of ``a.apply(b.apply(state))``."""
        return Permutation(first.steps + self.steps)

    def displacement(self) -> dict[str, float]:
        """Fraction of units, by group, that do not end where they began (in [0, 1]).

        A group within a block is counted from where its block has been moved to.
        """
        ends: dict[str, Tensor] = {}
        for group, order in self.steps:
            start = ends.get(group.name)
            ends[group.name] = order if start is None else start[order]
        return {
            name: float((order != torch.arange(len(order))).double().mean())
            for name, order in ends.items()
        }


def axis_order(
    length: int, offset: int, block: int, order: Int64[Tensor, " n"]
) -> Int64[Tensor, " length"]:
    """The order of a whole axis of ``length`` positions on which the units of ``order`` lie.

    Raises:
        ValueError: If the units do not fit the axis.

    >>> axis_order(5, 1, 2, torch.tensor([1, 0])).tolist()
    [0, 3, 4, 1, 2]
    """
    if offset + len(order) * block > length:
        raise ValueError(
            f"{len(order)} units of {block} from {offset} on do not fit {length} positions"
        )
    positions = torch.arange(length)
    units = order[:, None] * block + torch.arange(block)
    positions[offset : offset + len(order) * block] = offset + units.flatten()
    return positions


def _permuted(tensor: Tensor, touch: Touch, order: Tensor) -> Tensor:
    try:
        index = axis_order(tensor.shape[touch.dim], touch.offset, touch.block, order)
    except (IndexError, ValueError) as error:
        raise CheckpointError(
            f"cannot permute axis {touch.dim} of {touch.name!r} {tuple(tensor.shape)}: {error}"
        ) from error
    index = index.to(tensor.device)
    if touch.select is None:
        return tensor.index_select(touch.dim, index)
    other, start, stop = touch.select
    result = tensor.clone()
    region = result.narrow(other, start, stop - start)
    region.copy_(region.index_select(touch.dim, index))
    return result


_NOT_A_BIJECTION = "the order must hold each of the numbers 0 to {} - 1 once"


def _is_bijection(order: list[Any], size: int) -> bool:
    return len(order) == size and sorted(order) == list(range(size))


def _listed(data: object) -> list[Any]:
    if not isinstance(data, list):
        raise CheckpointError("a stored permutation must be a list of steps")
    return cast(list[Any], data)


def _read_step(groups: Mapping[str, Group], number: int, step: object) -> tuple[Group, Tensor]:
    for cause in _step_problems(groups, step):
        raise CheckpointError(f"stored permutation, step {number}: {cause}")
    entry = cast(dict[str, Any], step)
    return groups[entry["group"]], torch.tensor(entry["order"], dtype=torch.int64)


def _step_problems(groups: Mapping[str, Group], step: object) -> Iterator[str]:
    if not isinstance(step, dict) or set(cast(dict[Any, Any], step)) != {"group", "order"}:
        yield 'must be {"group": name, "order": [...]}'
        return
    entry = cast(dict[str, Any], step)
    name, order = entry["group"], entry["order"]
    group = groups.get(name) if isinstance(name, str) else None
    if group is None:
        yield f"{str(name)[:80]!r} is no group of this architecture"
    elif not isinstance(order, list) or any(
        type(number) is not int for number in cast(list[Any], order)
    ):
        yield f"the order of {name!r} must be a list of whole numbers"
    elif not _is_bijection(cast(list[Any], order), group.size):
        yield f"group {name!r}: {_NOT_A_BIJECTION.format(group.size)}"
