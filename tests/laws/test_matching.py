"""Law 3: matching recovers, orders, is optimal, and one pass is as good as one pass per layer."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from sslpurify.encoders.specs.resnet import resnet_spec
from sslpurify.symmetry.assignment import linear_assignment
from sslpurify.symmetry.matching import correlate, match, similarity
from sslpurify.symmetry.permutation import Permutation
from sslpurify.symmetry.spec import PermutationSpec
from tests.symmetry import adapter
from tests.symmetry.networks import PicoResNet, PicoTransformer, images, randomize, transformer_spec

SEEDS = st.integers(0, 2**32)
BATCHES = images(8).split(3)
few = settings(max_examples=3, deadline=None)


def transformer(seed: int) -> tuple[nn.Module, PermutationSpec]:
    return randomize(PicoTransformer(), seed), transformer_spec()


def resnet(block: type[BasicBlock | Bottleneck], small_stem: bool, seed: int):
    network = randomize(PicoResNet(block, small_stem), seed)
    return network, resnet_spec(network, "")


def make(name: str, seed: int) -> tuple[nn.Module, PermutationSpec]:
    if name == "attention":
        return transformer(seed)
    return resnet(BasicBlock if name == "basic" else Bottleneck, True, seed)


every = pytest.mark.parametrize("name", ["basic", "bottleneck", "attention"])


@every
@few
@given(seed=SEEDS)
def test_a_planted_permutation_is_recovered(name, seed):
    """Up to units that are dead on these images: they look the same wherever they stand."""
    network, spec = make(name, 0)
    moved, _ = make(name, 0)
    planted = Permutation.random(spec, torch.Generator().manual_seed(seed))
    moved.load_state_dict(planted.apply(network.state_dict()))
    found = match(spec, correlate(network, moved, BATCHES, spec), "align")
    before = adapter.activations(network, network.state_dict(), BATCHES[0], spec)
    after = adapter.activations(moved, found.apply(moved.state_dict()), BATCHES[0], spec)
    for probe, values in before.items():
        assert adapter.relative_error(after[probe], values) < 1e-9, probe


@every
@few
@given(seed=SEEDS)
def test_similarity_is_ordered(name, seed):
    reference, spec = make(name, 0)
    other, _ = make(name, seed)
    correlations = correlate(reference, other, BATCHES, spec)
    low, none, high = (
        similarity(correlations, permutation)
        for permutation in (
            match(spec, correlations, "misalign"),
            Permutation.identity(spec),
            match(spec, correlations, "align"),
        )
    )
    for group in spec.groups:
        if group.kind in {"qk", "vo"}:
            continue  # these live in whichever head was moved here: the heads hold their total
        assert low[group.name] <= none[group.name] + 1e-12
        assert none[group.name] <= high[group.name] + 1e-12


@settings(max_examples=25, deadline=None)
@given(data=st.data(), n=st.integers(1, 6), sense=st.sampled_from(["align", "misalign"]))
def test_assignment_equals_brute_force(data, n, sense):
    values = data.draw(st.lists(st.floats(-1, 1), min_size=n * n, max_size=n * n))
    scores = torch.tensor(values, dtype=torch.float64).reshape(n, n)
    totals = [sum(float(scores[i, j]) for i, j in enumerate(p)) for p in permutations(range(n))]
    found = linear_assignment(scores, sense)
    total = float(scores[torch.arange(n), found].sum())
    assert total == pytest.approx(max(totals) if sense == "align" else min(totals), abs=1e-12)
    assert sorted(found.tolist()) == list(range(n))


def corrcoef(x: Tensor, y: Tensor) -> np.ndarray:
    """Written out over all samples at once, with 0 for what does not vary."""
    a, b = (values.numpy() - values.numpy().mean(0) for values in (x, y))
    scale = np.outer(np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=0))
    return np.divide(a.T @ b, scale, out=np.zeros_like(scale), where=scale > 1e-9)


def seen_at(network: nn.Module, module: str, batch: Tensor) -> Tensor:
    """A pass over the data for a single layer."""
    kept: list[Tensor] = []
    handle = network.get_submodule(module).register_forward_pre_hook(
        lambda _, inputs: kept.append(inputs[0].clone())
    )
    with torch.no_grad():
        network(batch)
    handle.remove()
    return kept[0].movedim(1, -1).flatten(0, -2)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("sense", ["align", "misalign"])
def test_one_pass_equals_layer_by_layer_passes_over_permuted_networks(block, sense):
    reference, spec = resnet(block, True, 0)
    other, _ = resnet(block, True, 1)
    batch = torch.cat(BATCHES)
    correlations = correlate(reference, other, BATCHES, spec)
    found = match(spec, correlations, sense)
    for group, order in found.steps:
        probe = group.probes[0].probe
        scores = corrcoef(*(seen_at(net, probe.module, batch) for net in (reference, other)))
        np.testing.assert_allclose(correlations.matrices[probe], scores, atol=1e-9)
        step = linear_assignment(torch.from_numpy(scores), sense)
        places = np.arange(group.size)  # dead units tie, so the totals are compared
        assert scores[places, step].sum() == pytest.approx(scores[places, order].sum(), abs=1e-9)
        other.load_state_dict(Permutation(((group, step),)).apply(other.state_dict()))
