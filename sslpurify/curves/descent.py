"""Gradient descent over a known number of steps, the same for curves, heads and fine-tuning."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sslpurify.compute import Compute, exhausted, reason
from sslpurify.errors import TrainingError
from sslpurify.journal import FORGETFUL, Journal
from sslpurify.statedict import joined, parted
from sslpurify.types import Listener, Piece, State, Step, silent


@dataclass(frozen=True)
class Batch:
    """What a step shows to a network, and what it makes of the answer.

    Args:
        inputs: Each gives this process's rows of one micro-batch for the network, the same
            whenever it is called.
        loss: The scalar loss of the network's outputs, a tuple of tensors of which each holds the
            rows of all micro-batches in order; where processes share the work those of the first
            process, then those of the second, and so on.
    """

    inputs: Sequence[Callable[[], Tensor]]
    loss: Callable[[Any], Tensor]


Objective = Callable[[int], Batch]
"""Step from 0 -> its batch, a function of the step alone."""


def cosine(step: int, steps: int) -> float:
    """The factor of the learning rate, from 1 at step 0 towards 0 after the last step."""
    return 0.5 * (1.0 + math.cos(math.pi * step / steps))


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Args:
        steps: Number of steps, at least 1.
        images: Images in a full step, for the listener's sake.
        learning_rate: What ``rate`` is a factor of.
        stage: What is running, for people; names the stage in the journal.
        rate: (step from 0, steps) -> factor of the learning rate.
    """

    steps: int
    images: int
    learning_rate: float
    stage: str
    rate: Callable[[int, int], float] = cosine


def descend(
    optimizer: torch.optim.Optimizer,
    gradient: Callable[[int], float],
    schedule: Schedule,
    *,
    buffers: State | None = None,
    blame: Callable[[int], str] | None = None,
    journal: Journal = FORGETFUL,
    listener: Listener = silent,
) -> tuple[float, float]:
    """Takes the steps of a schedule; changes what the optimizer trains in place.

    Interrupted after any step and begun anew with the same journal, it ends with the same bytes:
    each step is a function of its number, the trained tensors, the optimizer's and the buffers.

    Args:
        optimizer: Of the leaves that are trained, before its first step.
        gradient: Writes the gradient of a step into the leaves' ``.grad`` and returns the loss.
        schedule: How long and how fast.
        buffers: What else the steps change in place, BatchNorm's statistics.
        blame: Names the images of a step whose loss or gradient is not finite.
        journal: Remembers where it stood.
        listener: Told about every step.

    Returns:
        Mean loss over the first and over the last tenth of the steps.

    Raises:
        TrainingError: A loss or a gradient is not finite, or memory ran out.
    """
    live = buffers or {}
    begun = journal.begun(schedule.stage)
    losses = [] if begun is None else _go_on(begun, optimizer, live)
    for step in range(len(losses), schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * schedule.rate(step, schedule.steps)
        with remembering(schedule.stage):
            loss = gradient(step)
            _require_finite(loss, optimizer, schedule, step, blame)
            optimizer.step()
        optimizer.zero_grad()  # gives the memory back before the next step's forward pass
        losses.append(loss)
        stands = partial(_standing, optimizer, live, losses)
        done = step + 1
        listener(Step(schedule.stage, done, schedule.steps, schedule.images, loss, stands))
    tenth = max(1, schedule.steps // 10)
    return sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth


def _require_finite(
    loss: float,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    step: int,
    blame: Callable[[int], str] | None,
) -> None:
    what = f"the loss is {loss}"
    if math.isfinite(loss):
        slopes = [leaf.grad for leaf in _trained(optimizer) if leaf.grad is not None]
        if not slopes or bool(nn.utils.get_total_norm(slopes).isfinite()):
            return
        what = "the gradient is not finite"
    images = "" if blame is None else f"\n{blame(step)}"
    raise TrainingError(
        f"{schedule.stage}: {what} at step {step + 1} of {schedule.steps}; "
        f"a lower learning rate may help{images}"
    )


def _trained(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [leaf for group in optimizer.param_groups for leaf in group["params"]]


def _standing(optimizer: torch.optim.Optimizer, buffers: State, losses: list[float]) -> Piece:
    """Everything that the steps so far have changed; not copied."""
    slots = {str(number): its for number, its in optimizer.state_dict()["state"].items()}
    parts = {
        "trained": {str(n): leaf.detach() for n, leaf in enumerate(_trained(optimizer))},
        "optimizer": joined(slots),
        "buffers": buffers,
        "losses": {"all": torch.tensor(losses, dtype=torch.float64)},
    }
    return Piece(joined(parts))


@torch.no_grad()
def _go_on(begun: Piece, optimizer: torch.optim.Optimizer, buffers: State) -> list[float]:
    """Puts everything back where it stood; returns the losses so far."""
    parts = parted(begun.tensors)
    for number, leaf in enumerate(_trained(optimizer)):
        leaf.copy_(parts["trained"][str(number)])
    for name, tensor in parts["buffers"].items():
        buffers[name].copy_(tensor)
    slots = {int(number): its for number, its in parted(parts["optimizer"]).items()}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    return parts["losses"]["all"].tolist()


def backward(network: nn.Module, batch: Batch, compute: Compute) -> float:
    """Fills the ``.grad`` of the network's parameters anew and returns the loss.

    Several micro-batches give the gradient of the loss over all of their rows together, so that
    each row has all others as negatives, in the memory of one micro-batch: outputs are computed
    without gradient first, the loss is differentiated with respect to them, and each micro-batch
    is run again to carry its part on (Gao et al. 2021, GradCache, arXiv 2101.06983).

    Processes that share the work do the same with each other's outputs: all compute the loss over
    the rows of all, each carries on the part of its own rows, and the gradients are summed once, at
    the end (docs/decisions/0005-distributed.md).
    """
    network.zero_grad(set_to_none=True)
    once, processes = len(batch.inputs) == 1, compute.processes
    if once and processes.count == 1:
        with compute.autocast():
            loss = batch.loss(network(batch.inputs[0]()))
        loss.backward()
        return float(loss.detach())
    with torch.set_grad_enabled(once), compute.autocast():
        parts = [network(images()) for images in batch.inputs]
    kind, sizes = type(parts[0]), [len(part[0]) for part in parts]
    gathered = [processes.gather(torch.cat(rows)) for rows in zip(*parts, strict=True)]
    cached = [torch.cat(rows).detach().requires_grad_() for rows in gathered]
    with compute.autocast():
        loss = batch.loss(kind(*cached))
    loss.backward()
    mine = sum(map(len, gathered[0][: processes.rank]))
    slopes = [
        () if rows.grad is None else rows.grad[mine : mine + sum(sizes)].split(sizes)
        for rows in cached
    ]
    for number, images in enumerate(batch.inputs):
        with compute.autocast():
            outputs = parts[0] if once else network(images())
        reached = [(o, s[number]) for o, s in zip(outputs, slopes, strict=True) if s]
        torch.autograd.backward([o for o, _ in reached], [s.to(o.dtype) for o, s in reached])
    processes.sum_(p.grad for p in network.parameters() if p.grad is not None)
    return float(loss.detach())


@contextmanager
def remembering(stage: str) -> Generator[None]:
    """Says what to do when memory runs out in training, whose batch is never changed silently."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not exhausted(error):
            raise
        raise TrainingError(
            f"{stage}: memory is exhausted ({reason(error)}); lower the batch_size among this "
            "training's settings. In a purification fewer images may pass at a time instead, which "
            "keeps the loss: --set tsc.micro_batch=64, or half of that"
        ) from error
