import pytest
import torch
from lightly.models.modules import SimCLRProjectionHead
from torch import nn
from torchvision.models import resnet18, resnet34, resnet50

from sslpurify.encoders import HeadLayout, create, default_head, simclr_architectures
from sslpurify.errors import ConfigError
from tests.symmetry.adapter import shapes
from tests.symmetry.networks import randomize

RESNETS = {18: (resnet18, 512), 34: (resnet34, 512), 50: (resnet50, 2048)}
ALL = [*simclr_architectures(), "simclr/resnet18-w8-cifar", "simclr/resnet50-w1"]


def published(depth: int, small_stem: bool = False) -> nn.Module:
    """As people make them: torchvision's network and lightly's head, put together by hand."""
    make, width = RESNETS[depth]
    backbone = make()
    backbone.fc = nn.Identity()
    if small_stem:
        backbone.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        backbone.maxpool = nn.Identity()
    head = SimCLRProjectionHead(width, width, 128)
    return nn.ModuleDict({"backbone": backbone, "projection_head": head})


def state_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    ("architecture", "depth", "small_stem", "size"),
    [
        ("simclr/resnet18", 18, False, 64),
        ("simclr/resnet18-cifar", 18, True, 16),
        ("simclr/resnet50", 50, False, 64),
    ],
)
def test_the_outputs_are_those_of_torchvision_and_lightly(architecture, depth, small_stem, size):
    expected = randomize(published(depth, small_stem))
    encoder = create(architecture, image_size=size, mean=(0.0,) * 3, std=(1.0,) * 3)
    network = encoder.fresh(0).double().eval()
    network.load_state_dict(expected.state_dict(), strict=True)
    batch = torch.rand(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        embedding, projection = network(batch)
        wanted = expected["backbone"](batch)
        torch.testing.assert_close(embedding, wanted, rtol=1e-12, atol=0)
        torch.testing.assert_close(
            projection, expected["projection_head"](wanted), rtol=1e-12, atol=0
        )
    assert embedding.shape == (2, encoder.embedding_dim)
    assert wanted.std() > 0


@pytest.mark.parametrize("small_stem", [False, True], ids=["imagenet", "cifar"])
@pytest.mark.parametrize("depth", RESNETS)
def test_the_tensors_are_those_of_torchvision_and_lightly(depth, small_stem):
    architecture = f"simclr/resnet{depth}{'-cifar' if small_stem else ''}"
    with torch.device("meta"):
        expected = state_shapes(published(depth, small_stem))
        found = state_shapes(create(architecture).fresh(0))
    assert found == expected


@pytest.mark.parametrize("architecture", ALL)
def test_everything_said_about_an_architecture_is_true(architecture):
    """Names, shapes, embedding length; every axis is permuted or fixed, the head's are fixed."""
    encoder = create(architecture)
    with torch.device("meta"):
        network = encoder.fresh(0)
    found = state_shapes(network)
    head = default_head(encoder.embedding_dim).shapes(encoder.embedding_dim)
    assert found == {
        **{f"backbone.{name}": shape for name, shape in encoder.shapes.items()},
        **{f"projection_head.{name}": shape for name, shape in head.items()},
    }
    assert encoder.name == architecture
    assert encoder.spec.problems(shapes(network)) == []
    assert encoder.spec.select(("inner",)).problems(shapes(network)) == []
    assert encoder.spec.outside(("backbone.layer1",)).problems(shapes(network)) == []
    touched = {touch.name for group in encoder.spec.groups for touch in group.touches}
    assert all(name.startswith("backbone.") for name in touched)


@pytest.mark.parametrize("architecture", ["simclr/resnet18", "simclr/resnet50-w8-cifar"])
def test_sections_take_the_backbone_apart_by_depth(architecture):
    encoder = create(architecture)
    with torch.device("meta"):
        network = encoder.fresh(0)
    parts = [network.get_submodule(name) for section in encoder.sections for name in section]
    found = [id(parameter) for part in parts for parameter in part.parameters()]
    assert found == [id(parameter) for parameter in network.backbone.parameters()]


@pytest.mark.parametrize("depth", [18, 50])
def test_narrow_ones_are_torchvision_s_at_another_width(depth):
    wide, narrow = (create(f"simclr/resnet{depth}{width}").shapes for width in ("", "-w8"))
    assert list(narrow) == list(wide)
    for name, shape in wide.items():
        expected = tuple(length if length in (1, 3, 7) else length // 8 for length in shape)
        assert narrow[name] == expected, name


def test_narrow_ones_compute():
    encoder = create("simclr/resnet50-w2", image_size=32)
    output = encoder.fresh(0)(torch.rand(2, 3, 32, 32))
    assert output.embedding.shape == (2, 64)
    assert output.embedding.std() > 0


def test_the_cifar_stem_keeps_the_size():
    with torch.device("meta"):
        network = create("simclr/resnet18-w8-cifar").fresh(0)
        assert network.backbone.conv1(torch.rand(1, 3, 32, 32)).shape == (1, 8, 32, 32)
    assert isinstance(network.backbone.maxpool, nn.Identity)


def test_a_head_without_the_last_norm_is_an_older_lightly_s():
    layout = HeadLayout(hidden=5, out=3, last_norm=False)
    encoder = create("simclr/resnet18-w2", image_size=32, head=layout)
    network = encoder.fresh(0)
    found = state_shapes(network.projection_head)
    assert found == layout.shapes(encoder.embedding_dim)
    assert found["layers.3.bias"] == (3,)
    assert encoder.spec.problems(shapes(network)) == []
    assert network(torch.rand(2, 3, 32, 32)).projection.shape == (2, 3)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "simclr/resnet19",
        "simclr/resnet18-w0",
        "simclr/resnet18-w12345",
        "simclr/resnet18-cifar-w8",
        "simclr/resnet18\n",
        "SimCLR/resnet18",
        "",
    ],
)
def test_an_unknown_architecture_is_named_with_the_known_ones(name):
    with pytest.raises(ConfigError) as caught:
        create(name)
    assert repr(name) in str(caught.value)
    known = (
        "simclr/resnet18, simclr/resnet34" if name.startswith("simclr/") else "simclr/resnet18 ("
    )
    assert known in str(caught.value)


def test_defaults_follow_the_kind_of_image():
    small, large = create("simclr/resnet18-cifar"), create("simclr/resnet18")
    assert (small.image_size, large.image_size) == (32, 224)
    assert small.mean != large.mean
    assert create("simclr/resnet18", image_size=32).std == small.std
    assert create("simclr/resnet18-cifar", image_size=96).std == large.std
    mean = (0.0, 0.0, 0.0)
    assert create("simclr/resnet18", mean=mean).mean == mean
    assert create("simclr/resnet18", mean=mean).std == large.std
    buffers = create("simclr/resnet18-w2", image_size=32).fresh(0).get_buffer("mean")
    torch.testing.assert_close(buffers.flatten(), torch.tensor(small.mean))


def test_initial_weights_are_spread_as_torchvision_s():
    """The replaced stem, too: He et al.'s draw by the fan-out, and BatchNorm that does nothing."""
    for architecture in ("simclr/resnet18-w16", "simclr/resnet18-w16-cifar"):
        backbone = create(architecture).fresh(0).backbone
        convolution = backbone.conv1
        fan_out = convolution.out_channels * convolution.kernel_size[0] ** 2
        spread = float(convolution.weight.detach().std())
        assert spread == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
        assert backbone.bn1.weight.detach().unique().tolist() == [1]
