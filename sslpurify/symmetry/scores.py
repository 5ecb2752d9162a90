"""How much correlation a unit brings at each position, blocks with groups inside included."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sslpurify.symmetry.assignment import Sense, linear_assignment
from sslpurify.symmetry.spec import Group, Probe


def unit_scores(
    group: Group, later: Iterable[Group], matrices: Mapping[Probe, Tensor], sense: Sense
) -> Float[Tensor, "n n"]:
    """Score of unit ``j`` at position ``i``, summed over the group's probes.

    For a unit of one channel that is its correlation. For a block it is the total that can still
    be reached inside: single channels that a group of ``later`` moves within the block are
    assigned in the same sense, all others count as they stand. So the heads are chosen for what
    the steps within the heads will make of them. A group that moves channels of several blocks
    alike counts with the best it could do for each: nobody knows yet which blocks will meet.

    Args:
        group: The group to score.
        later: The groups applied after it.
        matrices: Correlations by probe, columns as the groups before this one have moved them.
        sense: What the groups within a block will be assigned for.

    Returns:
        Scores in float64, on the CPU.
    """
    tiles = [
        _tiles(matrices[view.probe], view.offset, group.size, view.block) for view in group.probes
    ]
    if all(view.block == 1 for view in group.probes):
        return torch.stack(tiles).sum(0)[..., 0, 0]
    within = [other for other in later if all(view.block == 1 for view in other.probes)]
    scores = torch.zeros(group.size, group.size, dtype=torch.float64)
    for i in range(group.size):
        inside = [(other.size, places) for other in within if (places := _places(other, group, i))]
        for j in range(group.size):
            scores[i, j] = _reachable([tile[i, j] for tile in tiles], inside, sense)
    return scores


def _tiles(matrix: Tensor, offset: int, size: int, block: int) -> Float[Tensor, "n n block block"]:
    """The blocks of a correlation matrix, by position and unit."""
    stop = offset + size * block
    tiles = matrix[offset:stop, offset:stop].double().reshape(size, block, size, block)
    return tiles.transpose(1, 2)


def _places(inner: Group, outer: Group, unit: int) -> list[tuple[int, int]]:
    """Where views of ``inner`` lie in a block of ``outer``: number of the view, and offset."""
    places: list[tuple[int, int]] = []
    for part in inner.probes:
        for number, whole in enumerate(outer.probes):
            start = part.offset - whole.offset - unit * whole.block
            if part.probe == whole.probe and 0 <= start <= whole.block - inner.size:
                places.append((number, start))
    return places


def _reachable(
    tiles: Sequence[Tensor], inside: Iterable[tuple[int, list[tuple[int, int]]]], sense: Sense
) -> Tensor:
    """The best total of one block moved to one position."""
    standing = [tile.diagonal().clone() for tile in tiles]
    total = torch.zeros((), dtype=torch.float64)
    for size, places in inside:
        scores = torch.stack(
            [tiles[view][at : at + size, at : at + size] for view, at in places]
        ).sum(0)
        total += scores[torch.arange(size), linear_assignment(scores, sense)].sum()
        for view, at in places:
            standing[view][at : at + size] = 0
    return total + torch.stack([rest.sum() for rest in standing]).sum()
