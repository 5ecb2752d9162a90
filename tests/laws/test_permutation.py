"""Laws 1, 2, 4 and 10: permuting keeps the function, composes, inverts, and changes no input."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.resnet import BasicBlock, Bottleneck

from sslpurify.encoders.specs.resnet import resnet_spec
from sslpurify.symmetry.permutation import Permutation
from tests.symmetry import adapter
from tests.symmetry.networks import PicoResNet, PicoTransformer, images, randomize, transformer_spec

BASIC = randomize(PicoResNet(BasicBlock, small_stem=True))
DEEP = randomize(PicoResNet(Bottleneck, small_stem=False))
NETWORKS = {
    "basic": (BASIC, resnet_spec(BASIC, "")),
    "bottleneck": (DEEP, resnet_spec(DEEP, "")),
    "attention": (randomize(PicoTransformer()), transformer_spec()),
}
SEEDS = st.integers(0, 2**32)
every = pytest.mark.parametrize("name", NETWORKS)
few = settings(max_examples=4, deadline=None)


def draw(name: str, seed: int) -> Permutation:
    return Permutation.random(NETWORKS[name][1], torch.Generator().manual_seed(seed))


@every
@few
@given(seed=SEEDS)
def test_the_function_stays(name, seed):
    network, _ = NETWORKS[name]
    state, batch = network.state_dict(), images(2, 16)
    expected = adapter.outputs(network, state, batch)
    result = adapter.outputs(network, draw(name, seed).apply(state), batch)
    assert adapter.relative_error(result, expected) < 1e-9


@every
@few
@given(first=SEEDS, second=SEEDS)
def test_composition_is_one_after_the_other(name, first, second):
    state = NETWORKS[name][0].state_dict()
    a, b = draw(name, first), draw(name, second)
    adapter.assert_same(a.compose(b).apply(state), a.apply(b.apply(state)))


@every
@few
@given(seed=SEEDS)
def test_the_inverse_restores_every_bit(name, seed):
    state = NETWORKS[name][0].state_dict()
    before = {key: tensor.clone() for key, tensor in state.items()}
    permutation = draw(name, seed)
    adapter.assert_same(permutation.compose(permutation.inverse()).apply(state), state)
    adapter.assert_same(permutation.inverse().compose(permutation).apply(state), state)
    moved = permutation.apply(state)
    assert any(not torch.equal(moved[key], tensor) for key, tensor in state.items())
    adapter.assert_same(state, before)


@every
def test_the_specification_is_complete(name):
    network, spec = NETWORKS[name]
    assert spec.problems(adapter.shapes(network)) == []


@every
def test_the_identity_moves_nothing(name):
    network, spec = NETWORKS[name]
    identity = Permutation.identity(spec)
    adapter.assert_same(identity.apply(network.state_dict()), network.state_dict())
    assert set(identity.displacement().values()) == {0.0}
