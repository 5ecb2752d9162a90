import dataclasses

import pytest
import torch
from torch import nn

from sslpurify.encoders import Network, create
from sslpurify.statedict import digest, identical
from sslpurify.symmetry import Permutation, relative_error
from tests import pico
from tests.symmetry.networks import randomize


def images(count: int = 3, seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, pico.SIZE, pico.SIZE, generator=draws)


def test_normalization_belongs_to_the_network():
    mean, std = (0.1, 0.5, 0.3), (0.2, 0.4, 0.25)
    inside = create(pico.ARCH, image_size=pico.SIZE, mean=mean, std=std).load(pico.state())
    outside = create(pico.ARCH, image_size=pico.SIZE, mean=(0.0,) * 3, std=(1.0,) * 3)
    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    expected = outside.load(pico.state())((images() - shift) / scale)
    result = inside(images())
    assert torch.equal(result.embedding, expected.embedding)
    assert torch.equal(result.projection, expected.projection)


def test_normalization_is_no_part_of_the_state():
    state = pico.encoder().fresh(0).state_dict()
    assert {name.partition(".")[0] for name in state} == {"backbone", "projection_head"}


def test_the_projection_is_the_head_s_of_the_embedding():
    network = pico.encoder().load(pico.state())
    result = network(images())
    assert result.embedding.shape == (3, pico.encoder().embedding_dim)
    assert result.projection.shape == (3, 128)
    assert torch.equal(result.projection, network.projection_head(result.embedding))


def test_fresh_weights_are_a_function_of_the_seed():
    one, two, other = (digest(pico.encoder().fresh(seed).state_dict()) for seed in (3, 3, 4))
    assert one == two != other


def test_fresh_weights_leave_the_global_generator_alone():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    one = digest(pico.encoder().fresh(0).state_dict())
    assert torch.equal(torch.rand(3), expected)
    assert digest(pico.encoder().fresh(0).state_dict()) == one


def test_loading_copies():
    state = pico.state(1)
    before = digest(state)
    network = pico.encoder().load(state)
    assert not any(module.training for module in network.modules())
    assert digest(network.state_dict()) == before
    for tensor in network.state_dict().values():
        tensor.zero_()
    assert digest(state) == before


@pytest.mark.parametrize(
    "name", ["backbone.layer4.1.bn2.running_var", "projection_head.layers.0.weight"]
)
def test_a_state_that_lacks_something_is_not_loaded(name):
    state = pico.state()
    del state[name]
    with pytest.raises(RuntimeError, match=name):
        pico.encoder().load(state)


def test_weights_are_a_value_in_the_memory_order_of_files():
    network = pico.encoder().load(pico.state()).to(memory_format=torch.channels_last)
    assert not network.backbone.layer1[0].conv1.weight.is_contiguous()
    weights = network.weights()
    assert list(weights) == list(network.state_dict())
    assert all(identical(weights[name], t) for name, t in network.state_dict().items())
    assert all(tensor.is_contiguous() for tensor in weights.values())
    assert not any(tensor.requires_grad for tensor in weights.values())
    before = digest(weights)
    for tensor in network.state_dict().values():
        tensor.zero_()
    assert digest(weights) == before


@pytest.mark.parametrize("training", [False, True])
def test_permuting_the_network_keeps_embedding_and_projection(training):
    network = randomize(pico.encoder().fresh(0))
    state, batch = {k: t.clone() for k, t in network.state_dict().items()}, images(4).double()
    permutation = Permutation.random(pico.encoder().spec, torch.Generator().manual_seed(1))
    assert max(permutation.displacement().values()) > 0
    with torch.no_grad():
        expected = network.train(training)(batch)
        network.load_state_dict(permutation.apply(state))
        result = network(batch)
    assert relative_error(result.embedding, expected.embedding) < 1e-9
    assert relative_error(result.projection, expected.projection) < 1e-9


def test_any_backbone_and_head_make_a_network():
    network = Network(nn.Flatten(), nn.Linear(12, 2), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    embedding, projection = network(torch.ones(2, 3, 2, 2))
    assert (embedding.shape, projection.shape) == ((2, 12), (2, 2))


def test_an_encoder_is_a_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        pico.encoder().name = "other"
