import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslpurify.compute import Compute
from sslpurify.curves import reestimate
from sslpurify.statedict import digest
from tests import pico


def small(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)  # in the test's own process; the package never does
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5, momentum=None),
        nn.Flatten(),
        nn.Linear(5 * 2 * 2, 6),
        nn.BatchNorm1d(6),
    ).double()


def unequal_batches(sizes=(7, 2, 11)) -> list[torch.Tensor]:
    """Each of another brightness, so that the means of batches differ, too."""
    generator = torch.Generator().manual_seed(1)
    return [
        torch.rand(size, 3, 6, 6, generator=generator, dtype=torch.float64) * (number + 1)
        for number, size in enumerate(sizes)
    ]


def norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def reference_statistics(network: nn.Module, batches: list[torch.Tensor]):
    """Every sample that each layer sees, side by side, in float64."""
    network = copy.deepcopy(network).double().eval()
    seen: dict[nn.Module, list[torch.Tensor]] = {layer: [] for layer in norms(network)}
    for layer in seen:
        layer.train()
        layer.register_forward_pre_hook(lambda module, inputs: seen[module].append(inputs[0]))
    with torch.no_grad():
        for batch in batches:
            network(batch.double())
    columns = (
        torch.cat([part.transpose(0, 1).flatten(1) for part in parts], dim=1)
        for parts in seen.values()
    )
    return [(values.mean(1), values.var(1)) for values in columns]


def assert_measured(network: nn.Module, expected, tolerance: float) -> None:
    for layer, (mean, variance) in zip(norms(network), expected, strict=True):
        torch.testing.assert_close(
            layer.running_mean.double(), mean, rtol=tolerance, atol=tolerance
        )
        torch.testing.assert_close(
            layer.running_var.double(), variance, rtol=tolerance, atol=tolerance
        )


def test_the_statistics_are_those_of_all_samples():
    network, batches = small(), unequal_batches()
    expected = reference_statistics(network, batches)
    reestimate(network, batches)
    assert_measured(network, expected, 1e-12)


def test_the_average_of_batches_is_something_else():
    """So the test above can tell exact statistics from the usual cumulative average."""
    network, batches = small(), unequal_batches()
    (mean, variance), *_ = reference_statistics(network, batches)
    parts = [network[0](batch).transpose(0, 1).flatten(1).detach() for batch in batches]
    assert (torch.stack([p.mean(1) for p in parts]).mean(0) - mean).abs().max() > 1e-2
    assert (torch.stack([p.var(1) for p in parts]).mean(0) - variance).abs().max() > 1e-2


def test_an_encoder_in_float32_channels_last():
    network = pico.encoder().load(pico.state(1)).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(2)
    batches = [torch.rand(n, 3, pico.SIZE, pico.SIZE, generator=generator) for n in (9, 4)]
    expected = reference_statistics(network, batches)
    assert len(expected) == 22
    reestimate(network, batches)
    assert_measured(network, expected, 1e-4)


def test_bf16_passes_measure_in_float32():
    network, batches = small().float(), [batch.float() for batch in unequal_batches()]
    expected = reference_statistics(network, batches)
    reestimate(network, batches, Compute(bf16=True))
    assert {layer.running_var.dtype for layer in norms(network)} == {torch.float32}
    assert_measured(network, expected, 0.03)


def test_dropout_stays_off():
    batches = unequal_batches()
    plain, dropping = small(), small(dropout=0.9).train()
    reestimate(plain, batches)
    reestimate(dropping, batches)
    for one, other in zip(norms(plain), norms(dropping), strict=True):
        assert torch.equal(one.running_mean, other.running_mean)
        assert torch.equal(one.running_var, other.running_var)


def test_nothing_but_statistics_changes():
    network = small()
    parameters = digest(dict(network.named_parameters()))
    reestimate(network, unequal_batches())
    assert digest(dict(network.named_parameters())) == parameters


def test_the_result_depends_on_nothing_that_was_there_before():
    one, two = small(), small()
    for layer in norms(two):
        layer.running_mean.fill_(1e3)
        layer.running_var.fill_(1e6)
    reestimate(one, unequal_batches())
    reestimate(two, unequal_batches())
    for a, b in zip(norms(one), norms(two), strict=True):
        assert torch.equal(a.running_mean, b.running_mean)
        assert torch.equal(a.running_var, b.running_var)


def assert_as_found(network: nn.Module, modes: list[bool]) -> None:
    assert [module.training for module in network.modules()] == modes
    assert [layer.momentum for layer in norms(network)] == [0.1, None, 0.1]
    assert not any(module._forward_pre_hooks for module in network.modules())


def mixed_modes(network: nn.Module) -> list[bool]:
    network.train()
    network[1].eval()
    return [module.training for module in network.modules()]


def test_modes_momentum_and_hooks_come_back():
    network = small(dropout=0.5)
    modes = mixed_modes(network)
    reestimate(network, unequal_batches())
    assert_as_found(network, modes)


def test_they_come_back_after_an_error_too():
    def failing():
        yield unequal_batches()[0]
        raise KeyboardInterrupt

    network = small()
    modes = mixed_modes(network)
    with pytest.raises(KeyboardInterrupt):
        reestimate(network, failing())
    assert_as_found(network, modes)


def test_no_batch_is_an_error_and_changes_nothing():
    network = small()
    before = digest(network.state_dict())
    with pytest.raises(ValueError, match="at least one batch"):
        reestimate(network, [])
    assert digest(network.state_dict()) == before


def test_a_layer_that_is_not_reached_keeps_its_statistics():
    network = small()
    network[6].spare = nn.BatchNorm2d(2)
    reestimate(network, unequal_batches())
    assert network[6].spare.running_var.tolist() == [1, 1]
    assert network[6].spare.running_mean.tolist() == [0, 0]


def test_kept_parts_keep_their_statistics_and_use_them():
    """What comes behind them is measured on what they make of the images as they are."""
    network, batches = small(), unequal_batches()
    network[1].running_mean.fill_(0.3)
    network[1].running_var.fill_(4.0)
    kept = nn.Sequential(network[0], network[1])
    before = digest(kept.state_dict())
    with torch.no_grad():
        frozen = copy.deepcopy(kept).eval()
        rest = [frozen(batch) for batch in batches]
    expected = reference_statistics(network[2:], rest)
    reestimate(network, batches, kept=[kept])
    assert digest(kept.state_dict()) == before
    assert_measured(network[2:], expected, 1e-12)


def test_layers_without_running_statistics_are_left_alone():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))
    reestimate(network, [])
    assert network[1].running_mean is None
