import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50, resnext50_32x4d, wide_resnet50_2
from torchvision.models.resnet import BasicBlock, Bottleneck

from sslpurify.encoders.specs.resnet import resnet_spec
from sslpurify.errors import ConfigError
from sslpurify.symmetry.permutation import Permutation
from sslpurify.symmetry.spec import Fixed
from tests.symmetry import adapter
from tests.symmetry.networks import PicoResNet, images, randomize

KINDS = [(block, small) for block in (BasicBlock, Bottleneck) for small in (True, False)]
IDS = [f"{block.__name__}-{'cifar' if small else 'imagenet'}" for block, small in KINDS]


@pytest.mark.parametrize(("block", "small_stem"), KINDS, ids=IDS)
class TestEveryKind:
    def test_complete(self, block, small_stem):
        network = PicoResNet(block, small_stem)
        assert resnet_spec(network, "").problems(adapter.shapes(network)) == []

    def test_invariant(self, block, small_stem):
        network = randomize(PicoResNet(block, small_stem))
        spec = resnet_spec(network, "")
        adapter.assert_invariant(network, spec, images(4, 32), seed=2)
        adapter.assert_restores_bits(network, spec, seed=3)

    def test_every_touch_matters(self, block, small_stem):
        network = randomize(PicoResNet(block, small_stem))
        adapter.assert_every_touch_matters(network, resnet_spec(network, ""), images(4, 32))

    def test_probes_follow(self, block, small_stem):
        network = randomize(PicoResNet(block, small_stem))
        adapter.assert_probes_follow(network, resnet_spec(network, ""), images(2, 32))

    def test_the_embedding_stays(self, block, small_stem):
        network = PicoResNet(block, small_stem)
        spec = resnet_spec(network, "")
        last = "conv2" if block is BasicBlock else "conv3"
        for name in (f"layer4.0.{last}.weight", "layer4.0.downsample.1.running_var"):
            assert Fixed(name, 0) in spec.fixed
            assert (name, 0) not in {(t.name, t.dim) for g in spec.groups for t in g.touches}


def names(spec, kind):
    return [group.name for group in spec.groups if group.kind == kind]


def test_streams_begin_at_downsample_branches_whatever_the_depth():
    with torch.device("meta"):
        basic, bottleneck = resnet18(), resnet50()
    assert names(resnet_spec(basic), "residual") == ["stem", "layer2.0", "layer3.0"]
    assert len(names(resnet_spec(basic), "inner")) == 8
    streams = ["stem", "layer1.0", "layer2.0", "layer3.0"]
    assert names(resnet_spec(bottleneck), "residual") == streams
    assert len(names(resnet_spec(bottleneck), "inner")) == 32


def test_the_prefix_goes_before_tensors_and_modules():
    network = nn.ModuleDict({"backbone": PicoResNet(BasicBlock, small_stem=True)})
    spec = resnet_spec(network["backbone"])
    assert spec.problems(adapter.shapes(network)) == []
    assert all(
        view.probe.module.startswith("backbone.") for group in spec.groups for view in group.probes
    )


@pytest.mark.parametrize("make", [resnet18, resnet50], ids=["resnet18", "resnet50"])
def test_full_size_networks_keep_their_function(make):
    """The classifier that torchvision's own networks carry is fixed."""
    network = randomize(make())
    spec = resnet_spec(network, "")
    assert spec.problems(adapter.shapes(network)) == []
    state, batch = network.state_dict(), images(1, 64)
    drawn = Permutation.random(spec, torch.Generator().manual_seed(0))
    expected = adapter.outputs(network, state, batch)
    result = adapter.outputs(network, drawn.apply(state), batch)
    assert adapter.relative_error(result, expected) < 1e-9
    assert expected.abs().max() > 1e-3
    adapter.assert_same(drawn.inverse().apply(drawn.apply(state)), state)


def test_wide_bottlenecks_are_described_too():
    with torch.device("meta"):
        network = wide_resnet50_2()
    assert resnet_spec(network, "").problems(adapter.shapes(network)) == []


def test_channels_that_are_not_exchangeable_are_refused():
    with torch.device("meta"):
        grouped = resnext50_32x4d()
        normed = resnet18(norm_layer=lambda width: nn.GroupNorm(2, width))
        other = resnet18()
    with pytest.raises(ConfigError, match=r"layer1\.0\.conv2 is not a plain convolution"):
        resnet_spec(grouped)
    with pytest.raises(ConfigError, match="bn1 is GroupNorm"):
        resnet_spec(normed)
    other.layer3[1] = nn.Identity()
    with pytest.raises(ConfigError, match=r"layer3\.1 is no ResNet block but Identity"):
        resnet_spec(other)
