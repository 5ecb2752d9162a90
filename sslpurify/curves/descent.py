"""Gradient descent over a known number of steps, the same for curves, heads and fine-tuning."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslpurify.compute import Compute
from sslpurify.errors import TrainingError
from sslpurify.types import Listener, Step

Objective = Callable[[nn.Module, int], Tensor]
"""(network, step from 0) -> the scalar loss of that step's batch, a function of the step alone."""


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
        TrainingError: A loss is not finite.
    """
    optimizer = torch.optim.Adam(list(parameters), lr=schedule.learning_rate)
    losses: list[float] = []
    for step in range(schedule.steps):
        optimizer.param_groups[0]["lr"] = schedule.learning_rate * cosine(step, schedule.steps)
        loss = gradient(step)
        if not math.isfinite(loss):
            raise TrainingError(
                f"{schedule.stage}: the loss is {loss} at step {step + 1} of {schedule.steps}; "
                "a lower learning rate may help"
            )
        optimizer.step()
        optimizer.zero_grad()  # gives the memory back before the next step's forward pass
        losses.append(loss)
        listener(Step(schedule.stage, step + 1, schedule.steps, schedule.images, loss))
    tenth = max(1, schedule.steps // 10)
    return sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth


def cosine(step: int, steps: int) -> float:
    """The factor of the learning rate, from 1 at step 0 towards 0 after the last step."""
    return 0.5 * (1.0 + math.cos(math.pi * step / steps))


def backward(network: nn.Module, objective: Objective, step: int, compute: Compute) -> float:
    """Fills the ``.grad`` of the network's parameters anew and returns the loss."""
    network.zero_grad(set_to_none=True)
    with compute.autocast():
        loss = objective(network, step)
    loss.backward()
    return float(loss.detach())
