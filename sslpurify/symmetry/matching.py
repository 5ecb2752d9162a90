"""Matching the units of two networks, or of one with itself, by what they do on images.

Li et al. 2016 (arXiv 1511.07543) and git re-basin (arXiv 2209.04836, section 3.1). Permuting a
group leaves the activations of all other groups as they were, so one forward pass per network
serves every group.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import length_hint

import torch
from torch import Tensor, nn

from sslpurify.errors import ConfigError, DataError, TrainingError
from sslpurify.journal import FORGETFUL, Journal
from sslpurify.processes import ALONE, Processes
from sslpurify.statedict import joined, parted
from sslpurify.symmetry.assignment import Sense, linear_assignment
from sslpurify.symmetry.moments import Centred, CoMoments, centre
from sslpurify.symmetry.observing import observe
from sslpurify.symmetry.permutation import Permutation, axis_order
from sslpurify.symmetry.scores import unit_scores
from sslpurify.symmetry.spec import Group, PermutationSpec, Probe, View
from sslpurify.types import Listener, Piece, Step, silent


@dataclass(frozen=True, eq=False)
class Correlations:
    """Pearson correlations of the channels of two networks.

    Args:
        matrices: By probe; row ``i``, column ``j`` is channel ``i`` of the reference against
            channel ``j`` of the network to be permuted, in [-1, 1].
        images: How many images they come from.
    """

    matrices: Mapping[Probe, Tensor]
    images: int


def correlate(
    reference: nn.Module,
    other: nn.Module | None,
    batches: Iterable[Tensor],
    spec: PermutationSpec,
    *,
    stage: str = "matching",
    steps: int | None = None,
    journal: Journal = FORGETFUL,
    listener: Listener = silent,
    processes: Processes = ALONE,
) -> Correlations:
    """Correlate the units of every group in one forward pass per network and batch.

    The networks run in eval mode and come back in the mode they were in, without hooks. Memory
    grows with the batch and the networks' widths, not with the number of images.

    Args:
        reference: The network that stays as it is.
        other: The network that will be permuted; None: the reference with itself, run once.
        batches: Images as the networks take them; this process's, if several share the work. Some
            batches may be empty, so that all processes have as many.
        spec: Groups and where to watch them.
        stage: What is running, for people; names it in the journal.
        steps: Number of batches; None: as the batches hint at.
        journal: Remembers the sums over the batches that an earlier process saw.
        listener: Told about every batch.
        processes: Those that share the work; all get the correlations on the images of all.

    Raises:
        DataError: If there is no image, or none for one of the processes.
        ConfigError: If a probe does not fit the network.
        TrainingError: If activations are not finite, naming the first group that sees them.
    """
    probes: dict[Probe, Group] = {}
    for group in spec.groups:
        for view in group.probes:
            probes.setdefault(view.probe, group)
    moments, done, images = _begun(journal.begun(stage), probes, reference)
    for step, batch in enumerate(islice(batches, done, None), done + 1):
        if len(batch):
            _add_batch(moments, reference, None if other is reference else other, batch, probes)
        images += len(batch)
        total = steps or max(step, length_hint(batches))
        stands = partial(_standing, moments, probes, step, images)
        # Sums of one process of several are no state of the run: their matching starts anew.
        state = stands if moments and processes.count == 1 else None
        listener(Step(stage, step, total, len(batch), state=state))
    images = _merge(moments, probes, images, processes)
    for probe, group in probes.items():
        if not moments[probe].finite():
            raise TrainingError(
                f"matching group {group.name!r}: the activations at the {probe.side} of "
                f"{probe.module!r} are not finite, or too large for their squares to be"
            )
    result = Correlations({probe: moments.pop(probe).pearson() for probe in probes}, images)
    _require_fit(spec, result)
    return result


def match(spec: PermutationSpec, correlations: Correlations, sense: Sense) -> Permutation:
    """The permutation with the largest or the smallest total correlation, group by group.

    Groups are solved in the order of ``spec``, each on activations that the groups before it have
    already moved: first which head goes where, then the dimensions within each head. Where groups
    share no tensor axis this is the exact optimum, and so it is for blocks with groups inside.

    Args:
        spec: The groups to permute: those the correlations were collected for, or some of them.
        correlations: Of a reference with the network that will be permuted.
        sense: ``"align"`` for the most similar, ``"misalign"`` for the least similar.

    Returns:
        What to apply to the weights of the network to be permuted.

    Raises:
        ConfigError: If the correlations lack a group of ``spec``.
    """
    _require_fit(spec, correlations)
    matrices = _copied(correlations)
    steps: list[tuple[Group, Tensor]] = []
    for position, group in enumerate(spec.groups):
        scores = unit_scores(group, spec.groups[position + 1 :], matrices, sense)
        order = linear_assignment(scores, sense)
        steps.append((group, order))
        _move_columns(matrices, group, order)
    return Permutation(tuple(steps))


def similarity(correlations: Correlations, permutation: Permutation) -> dict[str, float]:
    """Mean correlation of each group's units with the reference once the permutation is applied.

    Returns:
        Values in [-1, 1] by group name; dead channels count as 0.
    """
    matrices = _copied(correlations)
    for group, order in permutation.steps:
        _move_columns(matrices, group, order)
    return {group.name: _agreement(group, matrices) for group, _ in permutation.steps}


def _standing(
    moments: Mapping[Probe, CoMoments], probes: Iterable[Probe], step: int, images: int
) -> Piece:
    sums = {str(number): moments[probe].sums() for number, probe in enumerate(probes)}
    return Piece(joined(sums), {"step": step, "images": images})


def _begun(
    piece: Piece | None, probes: Iterable[Probe], network: nn.Module
) -> tuple[dict[Probe, CoMoments], int, int]:
    """The sums so far, and over how many batches and images they run."""
    if piece is None:
        return {}, 0, 0
    sums = parted(piece.tensors)
    device = next(network.parameters()).device
    moments = {probe: CoMoments.restored(sums[str(n)], device) for n, probe in enumerate(probes)}
    return moments, piece.facts["step"], piece.facts["images"]


def _merge(
    moments: Mapping[Probe, CoMoments], probes: Iterable[Probe], images: int, processes: Processes
) -> int:
    """Brings together what all processes have counted; returns the number of images."""
    counts = [int(count) for count in processes.gather(torch.tensor([images]))]
    if sum(counts) == 0:
        raise DataError("matching needs at least one image, and there is none")
    if min(counts) == 0:
        raise DataError(f"matching on {sum(counts)} images leaves some processes without an image")
    for probe in probes:
        moments[probe].merge(processes)
    return sum(counts)


def _add_batch(
    moments: dict[Probe, CoMoments],
    reference: nn.Module,
    other: nn.Module | None,
    images: Tensor,
    probes: Collection[Probe],
) -> None:
    held: dict[Probe, Centred] = {}

    def hold(probe: Probe, activations: Tensor) -> None:
        held[probe] = centre(activations)

    def count(probe: Probe, activations: Tensor) -> None:
        y = centre(activations)
        x = held.pop(probe, y)
        if probe not in moments:
            moments[probe] = CoMoments(x, y)
        moments[probe].add(x, y)

    if other is None:
        observe(reference, images, probes, count)
    else:
        observe(reference, images, probes, hold)
        observe(other, images, probes, count)


def _require_fit(spec: PermutationSpec, correlations: Correlations) -> None:
    for group in spec.groups:
        for view in group.probes:
            matrix = correlations.matrices.get(view.probe)
            where = f"group {group.name!r} at the {view.probe.side} of {view.probe.module!r}"
            if matrix is None:
                raise ConfigError(f"{where}: no correlations were collected there")
            if view.offset + group.size * view.block > min(matrix.shape):
                raise ConfigError(
                    f"{where}: {group.size} units of {view.block} from {view.offset} on do not fit "
                    f"{tuple(matrix.shape)} channels"
                )


def _copied(correlations: Correlations) -> dict[Probe, Tensor]:
    return {probe: matrix.clone() for probe, matrix in correlations.matrices.items()}


def _move_columns(matrices: Mapping[Probe, Tensor], group: Group, order: Tensor) -> None:
    """Reorder a group in the correlations as it is reordered in the network to be permuted."""
    for view in group.probes:
        units = matrices[view.probe][:, view.offset : view.offset + group.size * view.block]
        units.copy_(units[:, axis_order(units.shape[1], 0, view.block, order)])


def _agreement(group: Group, matrices: Mapping[Probe, Tensor]) -> float:
    seen = [_span(matrices[view.probe].diagonal(), view, group.size) for view in group.probes]
    return sum(float(part.double().mean()) for part in seen) / len(seen)


def _span(diagonal: Tensor, view: View, size: int) -> Tensor:
    return diagonal[view.offset : view.offset + size * view.block]
