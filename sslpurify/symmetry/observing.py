"""Activations at the probes of a network, in one forward pass."""

from collections.abc import Callable, Collection, Generator
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sslpurify.errors import ConfigError
from sslpurify.symmetry.spec import Probe
from sslpurify.types import State

See = Callable[[Probe, Tensor], None]


def observe(network: nn.Module, images: Tensor, probes: Collection[Probe], see: See) -> None:
    """Run a network once, in eval mode, and show what each probe sees.

    Args:
        network: Comes back in the mode it was in and without hooks, also after an error.
        images: A batch as the network takes it.
        probes: Where to look.
        see: Called with a probe and its activations as (samples, channels), where every pixel or
            token is a sample; during the forward pass, in the network's order. It must not change
            them, and what it keeps it must copy: the network may go on to work in place.

    Raises:
        ConfigError: If a probe names no module of the network, or does not see exactly one tensor.
    """
    seen: set[Probe] = set()
    weights = network.state_dict() if any(probe.linear for probe in probes) else {}

    def show(probe: Probe, activations: object) -> None:
        if not isinstance(activations, Tensor) or probe in seen:
            raise ConfigError(f"{_place(probe)} is not one tensor, once in a forward pass")
        seen.add(probe)
        with torch.autocast(activations.device.type, enabled=False):
            see(probe, _as_samples(probe, activations, weights))

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(_evaluating(network))
        for probe in probes:
            stack.callback(_hook(network, probe, show))
        network(_pixels_first(images))
    for probe in probes:
        if probe not in seen:
            raise ConfigError(f"{_place(probe)} was not reached by the forward pass")


def _pixels_first(images: Tensor) -> Tensor:
    """Images in the memory order in which convolutions run fast and channels are columns."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def _hook(
    network: nn.Module, probe: Probe, show: Callable[[Probe, object], None]
) -> Callable[[], None]:
    """Hang a probe into its module; returns how to take it out."""
    try:
        module = network.get_submodule(probe.module)
    except AttributeError as error:
        raise ConfigError(f"{_place(probe)}: the network has no such module") from error

    def before(_: nn.Module, inputs: tuple[object, ...]) -> None:
        show(probe, inputs[0] if inputs else None)

    def after(_: nn.Module, __: object, output: object) -> None:
        show(probe, output)

    if probe.side == "input":
        return module.register_forward_pre_hook(before).remove
    return module.register_forward_hook(after).remove


def _as_samples(
    probe: Probe, activations: Tensor, weights: State
) -> Float[Tensor, "samples channels"]:
    if probe.layout == "channels-first":
        activations = activations.movedim(1, -1)
    if probe.linear is not None:
        rows = slice(probe.linear.start, probe.linear.stop)
        weight = weights[probe.linear.weight][rows]
        bias = None if probe.linear.bias is None else weights[probe.linear.bias][rows]
        activations = F.linear(activations.to(weight.dtype), weight, bias)
    return activations.reshape(-1, activations.shape[-1])


@contextmanager
def _evaluating(network: nn.Module) -> Generator[None]:
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _place(probe: Probe) -> str:
    return f"the {probe.side} of {probe.module!r}"
