"""The check that every description of an architecture must pass, on randomized weights."""

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sslpurify.symmetry.check import relative_error
from sslpurify.symmetry.observing import observe
from sslpurify.symmetry.permutation import Permutation, axis_order
from sslpurify.symmetry.spec import Group, PermutationSpec, Probe, Touch
from sslpurify.types import State


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(tensor.shape)
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }


def outputs(network: nn.Module, state: State, images: Tensor, training: bool = False) -> Tensor:
    """The network's outputs with other weights; a copy, as BatchNorm writes into its buffers."""
    network.train(training)
    copy = {name: tensor.clone() for name, tensor in state.items()}
    with torch.no_grad():
        result = functional_call(network, copy, (images,))
    network.eval()
    return result


def shift(group: Group) -> Tensor:
    """The order in which every unit moves to the next position, so that none stays by chance."""
    return torch.arange(group.size).roll(1)


def assert_invariant(network: nn.Module, spec: PermutationSpec, images: Tensor, seed: int) -> None:
    """Each group alone and all in sequence, with running and with batch statistics."""
    state = network.state_dict()
    drawn = Permutation.random(spec, torch.Generator().manual_seed(seed))
    for training in (False, True):
        expected = outputs(network, state, images, training)
        for permutation in (*(Permutation((step,)) for step in drawn.steps), drawn):
            result = outputs(network, permutation.apply(state), images, training)
            assert relative_error(result, expected) < 1e-9, permutation.steps[0][0].name


def assert_restores_bits(network: nn.Module, spec: PermutationSpec, seed: int) -> None:
    state = network.state_dict()
    drawn = Permutation.random(spec, torch.Generator().manual_seed(seed))
    assert_same(drawn.inverse().apply(drawn.apply(state)), state)


def assert_same(result: State, expected: State) -> None:
    assert list(result) == list(expected)
    for name, tensor in expected.items():
        assert result[name].dtype == tensor.dtype
        assert torch.equal(result[name], tensor), name


def assert_every_touch_matters(
    network: nn.Module,
    spec: PermutationSpec,
    images: Tensor,
    no_effect: Collection[tuple[str, Touch]] = (),
) -> None:
    """Without any one touch the outputs change, so none is missing or superfluous.

    Touches in ``no_effect``, by group name, are the ones that must not: a bias of the keys adds
    the same to every score of a query. One image shows it; there are hundreds of touches.
    """
    state, images = network.state_dict(), images[:1]
    expected = outputs(network, state, images)
    for group in spec.groups:
        for touch in group.touches:
            others = tuple(other for other in group.touches if other != touch)
            mutant = Permutation(((replace(group, touches=others), shift(group)),))
            error = relative_error(outputs(network, mutant.apply(state), images), expected)
            if (group.name, touch) in no_effect:
                assert error < 1e-9, (group.name, touch)
            else:
                assert error > 1e-6, (group.name, touch)


def activations(
    network: nn.Module, state: State, images: Tensor, spec: PermutationSpec
) -> dict[Probe, Tensor]:
    """What every probe of the specification sees with these weights."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    seen: dict[Probe, Tensor] = {}
    probes = dict.fromkeys(view.probe for group in spec.groups for view in group.probes)
    network.load_state_dict(dict(state))
    observe(network, images, probes, lambda probe, values: seen.update({probe: values.clone()}))
    network.load_state_dict(before)
    return seen


def assert_probes_follow(network: nn.Module, spec: PermutationSpec, images: Tensor) -> None:
    """A probe of the permuted network sees the permuted columns, group by group.

    This ties activations to weights, and finds a permutation taken for its inverse; and that no
    other group's activations move is why one pass serves all groups.
    """
    state = network.state_dict()
    before = activations(network, state, images, spec)
    for group in spec.groups:
        order = shift(group)
        after = activations(network, Permutation(((group, order),)).apply(state), images, spec)
        expected = dict(before)
        for view in group.probes:
            columns = axis_order(before[view.probe].shape[1], view.offset, view.block, order)
            expected[view.probe] = expected[view.probe][:, columns]
        for probe, values in expected.items():
            assert relative_error(after[probe], values) < 1e-9, (group.name, probe)
