"""Gradient descent over a known number of steps, the same for curves, heads and fine-tuning."""

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sslpurify.compute import Compute, exhausted, reason
from sslpurify.errors import TrainingError
from sslpurify.types import Listener, Step


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


@dataclass(frozen=True)
class Schedule:
    """Adam with a cosine decay over the real number of steps.

    Args:
        steps: Number of steps, at least 1.
        images: Images in a step, for the listener's sake.
        learning_rate: At the first step.
        stage: What is running, for people.
    """

    steps: int
    images: int
    learning_rate: float
    stage: str


def descend(
    parameters: Iterable[Tensor],
    gradient: Callable[[int], float],
    schedule: Schedule,
    listener: Listener,
) -> tuple[float, float]:
    """Minimizes by Adam; changes ``parameters`` in place.

    Args:
        parameters: Leaves that are trained.
        gradient: Writes the gradient of a step into the parameters' ``.grad`` and returns the loss.
        schedule: How long and how fast.
        listener: Told about every step.

    Returns:
        Mean loss over the first and over the last tenth of the steps.

    Raises:
        TrainingError: A loss is not finite, or memory ran out.
    """
    optimizer = torch.optim.Adam(list(parameters), lr=schedule.learning_rate)
    losses: list[float] = []
    for step in range(schedule.steps):
        optimizer.param_groups[0]["lr"] = schedule.learning_rate * cosine(step, schedule.steps)
        with remembering(schedule.stage):
            loss = gradient(step)
        if not math.isfinite(loss):
            raise TrainingError(
                f"{schedule.stage}: the loss is {loss} at step {step + 1} of {schedule.steps}; "
                "a lower learning rate may help"
            )
        with remembering(schedule.stage):
            optimizer.step()
        optimizer.zero_grad()  # gives the memory back before the next step's forward pass
        losses.append(loss)
        listener(Step(schedule.stage, step + 1, schedule.steps, schedule.images, loss))
    tenth = max(1, schedule.steps // 10)
    return sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth


def cosine(step: int, steps: int) -> float:
    """The factor of the learning rate, from 1 at step 0 towards 0 after the last step."""
    return 0.5 * (1.0 + math.cos(math.pi * step / steps))


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
            f"{stage}: memory is exhausted ({reason(error)}); let fewer images "
            "pass at a time, which keeps the loss: --set tsc.micro_batch=64, or half of that; or "
            "give a smaller batch_size"
        ) from error
