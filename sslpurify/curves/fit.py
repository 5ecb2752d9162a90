"""Training the bend of a curve, with any network and any label-free objective.

θ(t) is written into an ordinary network and the gradient that arrives there is scaled by
dθ(t)/d bend = 2t(1-t): exactly what automatic differentiation through the curve gives, with no
curve copy of any layer, at the cost of a plain step (Garipov et al. 2018, equation 2).
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from sslpurify.compute import PLAIN, Compute
from sslpurify.curves.bezier import BezierCurve, basis, midpoint_bend
from sslpurify.curves.descent import Objective, Schedule, backward, descend
from sslpurify.journal import FORGETFUL, Journal
from sslpurify.rng import generator
from sslpurify.statedict import require_same_keys
from sslpurify.types import Listener, State, silent

Endpoints = Literal["device", "host"]
"""Where the ends of a curve are kept: with the network, or in the machine's memory."""


def fit_bend(
    network: nn.Module,
    start: State,
    end: State,
    objective: Objective,
    schedule: Schedule,
    *,
    seed: int,
    weight_decay: float = 0.0,
    endpoints: Endpoints = "device",
    compute: Compute = PLAIN,
    blame: Callable[[int], str] | None = None,
    journal: Journal = FORGETFUL,
    listener: Listener = silent,
) -> tuple[BezierCurve, tuple[float, float]]:
    """Fits the curve between two networks: t ~ U(0, 1), one draw a step, only the bend trained.

    Args:
        network: A scratch network of the architecture on the compute's device, in the mode to train
            in; its weights and buffers are overwritten.
        start: State (buffers are ignored) at t = 0.
        end: State at t = 1.
        objective: The label-free loss.
        schedule: How long and how fast.
        seed: Draws t, as a function of the stage and the step.
        weight_decay: Factor wd of the term 0.5 · wd · ‖θ(t)‖² added to the loss.
        endpoints: Where the two ends are kept. ``host`` leaves them in the machine's memory and
            brings them to the device one tensor at a time at every step: the same numbers in the
            device memory of two networks less, for the time that the way takes.
        compute: Device and precision.
        blame: Names the images of a step whose loss or gradient is not finite; the network then
            holds the point of the curve that the step looked at.
        journal: Remembers where an interrupted fit stood.
        listener: Told about every step.

    Returns:
        The fitted curve (on the CPU) and the mean losses of the first and last tenth of the steps.

    Raises:
        TrainingError: A loss or a gradient is not finite.
    """
    live = {name: p for name, p in network.named_parameters() if p.requires_grad}
    ends = [_placed(state, live, endpoints) for state in (start, end)]
    for state in ends:
        compute.processes.broadcast_(state.values())
    bend = {
        name: tensor.to(live[name].device).requires_grad_()
        for name, tensor in midpoint_bend(ends[0], ends[1]).items()
    }
    curve = BezierCurve(ends[0], bend, ends[1])

    def gradient(step: int) -> float:
        t = float(torch.rand((), generator=generator(seed, schedule.stage, "t", step)))
        put(live, curve, t)
        loss = backward(network, objective(step), compute)
        hand_over(live, bend, t, weight_decay)
        return loss

    losses = descend(
        torch.optim.Adam(list(bend.values()), lr=schedule.learning_rate),
        gradient,
        schedule,
        blame=blame,
        journal=journal,
        listener=listener,
    )
    fitted = {name: tensor.detach().cpu().contiguous() for name, tensor in bend.items()}
    return BezierCurve(*(_named(state, live) for state in (start, fitted, end))), losses


@torch.no_grad()
def put(live: dict[str, nn.Parameter], curve: BezierCurve, t: float) -> None:
    """Writes the curve's point at ``t`` into live parameters."""
    start, bend, end = basis(t)
    for name, parameter in live.items():
        near, far = (
            state[name].to(parameter.device, non_blocking=True)
            for state in (curve.start, curve.end)
        )
        torch.mul(near, start, out=parameter)
        parameter.add_(curve.bend[name], alpha=bend).add_(far, alpha=end)


@torch.no_grad()
def hand_over(
    live: dict[str, nn.Parameter], bend: dict[str, Tensor], t: float, weight_decay: float
) -> None:
    """Turns the gradient at θ(t), weight decay included, into that of the bend."""
    share = basis(t)[1]
    for name, parameter in live.items():
        if parameter.grad is None:
            bend[name].grad = None
        else:
            bend[name].grad = parameter.grad.add_(parameter, alpha=weight_decay).mul_(share)


def _placed(state: State, live: dict[str, nn.Parameter], endpoints: Endpoints) -> dict[str, Tensor]:
    """Private copies of the trained tensors: as the network's own, or in the machine's memory."""
    chosen = _named(state, live)
    require_same_keys(chosen, {name: parameter.detach() for name, parameter in live.items()})
    return {name: _room(live[name], endpoints).copy_(tensor) for name, tensor in chosen.items()}


def _room(like: nn.Parameter, endpoints: Endpoints) -> Tensor:
    if endpoints == "device":
        return torch.empty_like(like, requires_grad=False)
    return torch.empty_like(like, device="cpu", requires_grad=False, pin_memory=like.is_cuda)


def _named(state: State, live: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: state[name] for name in live if name in state}
