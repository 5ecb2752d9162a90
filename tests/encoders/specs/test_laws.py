"""What every specification must hold, on randomized pico networks of all families."""

import pytest
import torch
from torch import nn

from sslpurify.encoders.specs import sections_of
from sslpurify.symmetry.matching import correlate, match
from sslpurify.symmetry.permutation import Permutation
from tests.encoders.specs.families import FAMILIES
from tests.symmetry import adapter
from tests.symmetry.networks import images, randomize


def without_effect(spec):
    """Biases that keys end with: they add the same to every score of a query.

    A norm behind the projection takes the part over from the projection's bias.
    """
    for group in spec.groups:
        if group.kind not in {"heads", "qk"}:
            continue
        keys = group.probes[-1 if group.kind == "qk" else -2].probe.linear
        normed = any(
            "ln_k." in t.name or "k_norm." in t.name for g in spec.groups for t in g.touches
        )
        for touch in group.touches:
            last = touch.name == keys.bias and keys.start <= touch.offset < keys.stop
            if touch.name.endswith(("ln_k.bias", "k_norm.bias")) or (last and not normed):
                yield group.name, touch


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def family(request):
    return request.param


@pytest.fixture
def network(family):
    return randomize(family.make())


@pytest.fixture
def spec(family, network):
    return family.spec(network, "")


@pytest.fixture
def batch(family):
    return images(4, family.size)


def test_complete(network, spec):
    assert spec.problems(adapter.shapes(network)) == []


def test_all_kinds_of_groups_are_there(family, spec):
    assert {group.kind for group in spec.groups} == set(family.kinds.split())


def test_invariant(network, spec, batch):
    adapter.assert_invariant(network, spec, batch, seed=2)
    adapter.assert_restores_bits(network, spec, seed=3)


def test_every_touch_matters(network, spec, batch):
    adapter.assert_every_touch_matters(network, spec, batch, [*without_effect(spec)])


def test_probes_follow(network, spec, batch):
    adapter.assert_probes_follow(network, spec, batch)


def test_a_planted_permutation_is_recovered(family, network, spec):
    """Up to units that are dead on these images: they look the same wherever they stand."""
    batches = images(8, family.size).split(3)
    moved = randomize(family.make())
    planted = Permutation.random(spec, torch.Generator().manual_seed(4))
    moved.load_state_dict(planted.apply(network.state_dict()))
    found = match(spec, correlate(network, moved, batches, spec), "align")
    before = adapter.activations(network, network.state_dict(), batches[0], spec)
    after = adapter.activations(moved, found.apply(moved.state_dict()), batches[0], spec)
    for probe, values in before.items():
        assert adapter.relative_error(after[probe], values) < 1e-9, probe


def test_every_tensor_is_in_one_section(network):
    module = getattr(network, "module", network)
    entries = [entry for section in sections_of(module) for entry in section]
    for name in module.state_dict():
        homes = [entry for entry in entries if name == entry or name.startswith(f"{entry}.")]
        assert len(homes) == 1, (name, homes)


def test_only_the_layout_is_read(family, spec):
    with torch.device("meta"):
        network = family.make()
    assert family.spec(network, "") == spec


def test_the_prefix_goes_before_tensors_and_modules(family, network):
    holder = nn.ModuleDict({"backbone": network})
    spec = family.spec(network, "backbone.")
    assert spec.problems(adapter.shapes(holder)) == []
    views = [view for group in spec.groups for view in group.probes]
    assert all(view.probe.module.startswith("backbone.") for view in views)
