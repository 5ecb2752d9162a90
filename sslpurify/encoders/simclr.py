"""SimCLR encoders: a torchvision ResNet without its classifier, and lightly's projection head.

An architecture is named ``simclr/resnet{18,34,50}[-wN][-cifar]``: N is the width of the first stage
(64 unless said), ``-cifar`` the stem for small images, a 3x3 convolution of stride 1 and no
max-pooling (Chen et al. 2020, SimCLR, appendix B.9).
"""

import re
from dataclasses import dataclass
from functools import cache, partial

import torch
from lightly.models.modules.heads import ProjectionHead
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from sslpurify.encoders.encoder import Channels, Encoder, Network
from sslpurify.encoders.layout import HeadLayout
from sslpurify.encoders.specs.resnet import resnet_spec
from sslpurify.errors import ConfigError
from sslpurify.symmetry.spec import PermutationSpec, fixed_axes

CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SMALL_IMAGE = 64
SECTIONS = (
    ("backbone.conv1", "backbone.bn1", "backbone.layer1"),
    ("backbone.layer2",),
    ("backbone.layer3",),
    ("backbone.layer4",),
)
"""A ResNet by depth: the stem and the first stage, then each stage."""

_BLOCKS: dict[int, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    18: (BasicBlock, [2, 2, 2, 2]),
    34: (BasicBlock, [3, 4, 6, 3]),
    50: (Bottleneck, [3, 4, 6, 3]),
}
_NAME = re.compile(r"simclr/resnet(18|34|50)(?:-w([1-9]\d{0,3}))?(-cifar)?")


@dataclass(frozen=True)
class _Backbone:
    depth: int
    width: int
    small_stem: bool


class _ScaledResNet(ResNet):
    """torchvision's ResNet at another width; the same names, blocks and forward pass."""

    def __init__(self, shape: _Backbone) -> None:
        self.width = shape.width
        super().__init__(*_BLOCKS[shape.depth], num_classes=1)
        self.conv1 = (
            nn.Conv2d(3, shape.width, 3, padding=1, bias=False)
            if shape.small_stem
            else nn.Conv2d(3, shape.width, 7, stride=2, padding=3, bias=False)
        )
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = nn.BatchNorm2d(shape.width)
        if shape.small_stem:
            self.maxpool = nn.Identity()
        self.fc = nn.Identity()

    def _make_layer(
        self,
        block: type[BasicBlock | Bottleneck],
        planes: int,
        blocks: int,
        stride: int = 1,
        dilate: bool = False,
    ) -> nn.Sequential:
        if planes == 64:
            self.inplanes = self.width
        return super()._make_layer(block, planes * self.width // 64, blocks, stride, dilate)


def architectures(width: int = 64) -> tuple[str, ...]:
    """The architectures of one width."""
    narrow = "" if width == 64 else f"-w{width}"
    return tuple(
        f"simclr/resnet{depth}{narrow}{stem}" for stem in ("", "-cifar") for depth in _BLOCKS
    )


def backbone_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the backbone, by torchvision's name.

    Raises:
        ConfigError: There is no such architecture.
    """
    blueprint = _blueprint(_parse(architecture))
    return {name: tuple(tensor.shape) for name, tensor in blueprint.state_dict().items()}


def default_head(architecture: str) -> HeadLayout:
    """The head that is made where a checkpoint has none: as wide as the embedding, then 128."""
    return HeadLayout(hidden=_embedding_dim(_parse(architecture)), out=128, last_norm=True)


def create(
    architecture: str,
    *,
    image_size: int | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    head: HeadLayout | None = None,
) -> Encoder:
    """The encoder of this name.

    Args:
        architecture: As on the command line.
        image_size: In pixels; 32 for ``-cifar``, else 224, unless given.
        mean: Of the normalization; CIFAR-10's for images up to 64 pixels, else ImageNet's.
        std: Of the normalization, likewise.
        head: Shape of the projection head; `default_head` unless given.

    Raises:
        ConfigError: There is no such architecture.
    """
    shape = _parse(architecture)
    size = image_size or (32 if shape.small_stem else 224)
    usual_mean, usual_std = CIFAR10 if size <= SMALL_IMAGE else IMAGENET
    make = partial(
        _network, shape, head or default_head(architecture), mean or usual_mean, std or usual_std
    )
    return Encoder(
        name=architecture,
        image_size=size,
        mean=mean or usual_mean,
        std=std or usual_std,
        embedding_dim=_embedding_dim(shape),
        spec=_spec(shape, head or default_head(architecture)),
        sections=SECTIONS,
        make=make,
    )


def _parse(architecture: str) -> _Backbone:
    match = _NAME.fullmatch(architecture)
    if match is None:
        known = ", ".join(architectures())
        raise ConfigError(
            f"unknown architecture {architecture!r}; known are {known}, and narrower ones such as "
            "simclr/resnet18-w16-cifar"
        )
    depth, width, stem = match.groups()
    return _Backbone(int(depth), int(width or 64), stem is not None)


def _network(shape: _Backbone, head: HeadLayout, mean: Channels, std: Channels) -> Network:
    return Network(_ScaledResNet(shape), _projection_head(_embedding_dim(shape), head), mean, std)


def _projection_head(embedding_dim: int, head: HeadLayout) -> ProjectionHead:
    """The head of lightly, `SimCLRProjectionHead`, whose last BatchNorm older releases lack."""
    norm = nn.BatchNorm1d(head.out) if head.last_norm else None
    hidden = (embedding_dim, head.hidden, nn.BatchNorm1d(head.hidden), nn.ReLU())
    return ProjectionHead([hidden, (head.hidden, head.out, norm, None)])


def _embedding_dim(shape: _Backbone) -> int:
    return 8 * shape.width * _BLOCKS[shape.depth][0].expansion


@cache
def _blueprint(shape: _Backbone) -> ResNet:
    with torch.device("meta"):
        return _ScaledResNet(shape)


@cache
def _spec(shape: _Backbone, head: HeadLayout) -> PermutationSpec:
    spec = resnet_spec(_blueprint(shape), "backbone.")
    in_head = {f"projection_head.{k}": v for k, v in head.shapes(_embedding_dim(shape)).items()}
    return PermutationSpec(spec.groups, spec.fixed + fixed_axes(in_head))
