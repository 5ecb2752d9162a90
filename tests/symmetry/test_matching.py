import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from sslpurify.encoders.specs.resnet import resnet_spec
from sslpurify.errors import ConfigError, DataError, TrainingError
from sslpurify.symmetry.matching import Correlations, correlate, match, similarity
from sslpurify.symmetry.permutation import Permutation
from sslpurify.symmetry.spec import Group, PermutationSpec, Probe, Touch, View
from sslpurify.types import Step

from . import adapter
from .networks import PicoResNet, PicoTransformer, images, randomize, transformer_spec


class Counted(nn.Module):
    """Counts the forward passes of a network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.passes = 0

    def forward(self, batch: Tensor) -> Tensor:
        self.passes += 1
        return self.network(batch)


def resnet(seed: int = 0) -> Counted:
    return Counted(randomize(PicoResNet(BasicBlock, small_stem=True), seed))


SPEC = resnet_spec(PicoResNet(BasicBlock, small_stem=True), "network.")
BATCHES = list(images(12).split(5))


def test_one_pass_per_network_and_batch_serves_all_groups():
    reference, other = resnet(), resnet(1)
    correlate(reference, other, BATCHES, SPEC)
    assert (reference.passes, other.passes) == (3, 3)


def test_a_network_is_run_once_against_itself():
    network, twin = resnet(), resnet()
    alone = correlate(network, None, BATCHES, SPEC)
    assert network.passes == 3
    same = correlate(network, network, BATCHES, SPEC)
    assert network.passes == 6
    pair = correlate(network, twin, BATCHES, SPEC)
    assert alone.images == same.images == pair.images == 12
    for probe, matrix in alone.matrices.items():
        np.testing.assert_allclose(matrix, pair.matrices[probe], atol=1e-12)
        assert torch.equal(matrix, same.matrices[probe])
        np.testing.assert_allclose(matrix.diagonal()[matrix.diagonal() != 0], 1)


def test_correlations_are_pearsons_over_all_images_and_pixels():
    reference, other = resnet(), resnet(1)
    correlations = correlate(reference, other, BATCHES, SPEC)
    whole = torch.cat(BATCHES)
    seen = [adapter.activations(net, net.state_dict(), whole, SPEC) for net in (reference, other)]
    for probe, matrix in correlations.matrices.items():
        x, y = (activations[probe].numpy() for activations in seen)
        alive = np.ix_(x.std(0) > 0, y.std(0) > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = np.corrcoef(x, y, rowvar=False)[: x.shape[1], x.shape[1] :]
        np.testing.assert_allclose(matrix[alive], expected[alive], atol=1e-12)
        assert matrix.count_nonzero() == matrix[alive].count_nonzero()


def test_a_planted_permutation_of_heads_and_within_heads_is_recovered():
    spec = transformer_spec()
    network, moved = randomize(PicoTransformer()), PicoTransformer().double()
    planted = Permutation.random(spec, torch.Generator().manual_seed(7))
    assert min(planted.displacement().values()) < 1  # a head may stay, its inside may not
    assert max(planted.displacement().values()) == 1
    moved.load_state_dict(planted.apply(network.state_dict()))
    correlations = correlate(network, moved, images(24).split(8), spec)
    found = match(spec, correlations, "align")
    adapter.assert_same(found.apply(moved.state_dict()), network.state_dict())
    assert min(similarity(correlations, found).values()) == pytest.approx(1, abs=1e-9)


def test_heads_are_chosen_for_what_the_steps_inside_make_of_them():
    """Head 0 of the other looks like ours, head 1 is ours once its dimensions are swapped."""
    probe = Probe("attn")
    touch = (Touch("w", 0),)
    heads = Group("heads", 2, touch, (View(probe, 0, 2),), "heads")
    inside = tuple(Group(f"vo{h}", 2, touch, (View(probe, 2 * h),), "vo") for h in (0, 1))
    matrix = torch.zeros(4, 4)
    matrix[0:2, 0:2] = torch.tensor([[0.6, 0.0], [0.0, 0.6]])
    matrix[0:2, 2:4] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    correlations = Correlations({probe: matrix}, images=1)
    whole = match(PermutationSpec((heads, *inside)), correlations, "align")
    assert [order.tolist() for _, order in whole.steps] == [[1, 0], [1, 0], [0, 1]]
    assert similarity(correlations, whole) == {"heads": 0.5, "vo0": 1.0, "vo1": 0.0}
    stiff = match(PermutationSpec((heads,)), correlations, "align")
    assert [order.tolist() for _, order in stiff.steps] == [[0, 1]]


def test_the_probes_of_a_group_are_summed():
    first, second = Probe("a"), Probe("b")
    group = Group("g", 2, (Touch("w", 0),), (View(first), View(second, 1)), "inner")
    straight, crossed = torch.eye(2) * 0.4, torch.zeros(3, 3)
    crossed[1, 2] = crossed[2, 1] = 0.5
    spec, both = PermutationSpec((group,)), Correlations({first: straight, second: crossed}, 1)
    assert match(spec, both, "align").steps[0][1].tolist() == [1, 0]
    assert match(spec, both, "misalign").steps[0][1].tolist() == [0, 1]
    assert similarity(both, Permutation.identity(spec)) == {"g": pytest.approx(0.2)}


def test_some_of_the_groups_can_be_matched():
    network = resnet()
    correlations = correlate(network, None, BATCHES, SPEC)
    inner = match(SPEC.select({"inner"}), correlations, "misalign")
    whole = {group.name: o for group, o in match(SPEC, correlations, "misalign").steps}
    assert 0 < len(inner.steps) < len(whole)
    assert all(torch.equal(order, whole[group.name]) for group, order in inner.steps)


def test_correlations_must_cover_the_groups():
    correlations = correlate(resnet(), None, BATCHES, SPEC.select({"inner"}))
    with pytest.raises(ConfigError, match=r"group 'stem' at the input of 'network\.layer2\.0'"):
        match(SPEC, correlations, "align")


def test_a_group_larger_than_its_probe_is_refused():
    group = Group("g", 9, (Touch("w", 0),), (View(Probe("network.layer2.0")),), "inner")
    with pytest.raises(ConfigError, match=r"'g' .* 9 units of 1 from 0 on do not fit"):
        correlate(resnet(), None, BATCHES, PermutationSpec((group,)))


def test_activations_that_are_not_finite_name_the_first_group():
    network = resnet()
    network.network.layer2[0].bn1.bias.data[1] = torch.nan
    with pytest.raises(TrainingError, match=r"group 'layer2\.0\.conv1'.* not finite"):
        correlate(network, None, BATCHES, SPEC)


def test_no_images_are_a_data_error():
    with pytest.raises(DataError, match="at least one image"):
        correlate(resnet(), None, [], SPEC)


def test_the_listener_hears_every_batch():
    steps: list[Step] = []
    correlate(resnet(), None, BATCHES, SPEC, listener=steps.append)
    assert [(step.step, step.steps, step.images) for step in steps] == [
        (1, 3, 5),
        (2, 3, 5),
        (3, 3, 2),
    ]
    steps.clear()
    correlate(resnet(), None, (batch for batch in BATCHES), SPEC, listener=steps.append)
    assert [step.step for step in steps] == [1, 2, 3]


def test_products_stay_single_precision_under_autocast():
    network, twin = resnet().float(), resnet(1).float()
    batches = [batch.float() for batch in BATCHES]
    exact = correlate(network, twin, batches, SPEC)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = correlate(network, twin, batches, SPEC)
        ones = torch.ones(2, 2) @ torch.ones(2, 2)
    assert ones.dtype == torch.bfloat16
    for probe, matrix in rounded.matrices.items():
        assert matrix.dtype == torch.float32
        assert (matrix - exact.matrices[probe]).abs().mean() < 0.05


def test_matching_changes_no_weights():
    reference, other = resnet().train(), resnet(1).eval()
    before = [{k: v.clone() for k, v in net.state_dict().items()} for net in (reference, other)]
    match(SPEC, correlate(reference, other, BATCHES, SPEC), "align")
    adapter.assert_same(reference.state_dict(), before[0])
    adapter.assert_same(other.state_dict(), before[1])
    assert reference.training
    assert not other.training
