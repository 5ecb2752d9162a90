"""SimCLR encoders: a torchvision ResNet without its classifier, and lightly's projection head.

An architecture is named ``simclr/resnet{18,34,50}[-wN][-cifar]``: N is the width of the first stage
(64 unless said), ``-cifar`` the stem for small images, a 3x3 convolution of stride 1 and no
max-pooling (Chen et al. 2020, SimCLR, appendix B.9).
"""

import re
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from sslpurify.encoders.encoder import BACKBONE, Channels, Encoder, Spelling, shapes_of
from sslpurify.encoders.head import HeadLayout, default_head
from sslpurify.encoders.normalization import CIFAR10, IMAGENET
from sslpurify.encoders.specs import resnet_spec
from sslpurify.errors import ConfigError
from sslpurify.symmetry.spec import PermutationSpec, Shapes

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
_CHILDREN = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
_PLACES = ((0, 1, 3, 4, 5, 6), (0, 1, 4, 5, 6, 7), (0, 1, 2, 3, 4, 5))
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


def simclr_architectures(width: int = 64) -> tuple[str, ...]:
    """The architectures of one width."""
    narrow = "" if width == 64 else f"-w{width}"
    return tuple(
        f"simclr/resnet{depth}{narrow}{stem}" for stem in ("", "-cifar") for depth in _BLOCKS
    )


def simclr_encoder(
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
        head: Shape of the projection head; the usual one unless given.

    Raises:
        ConfigError: There is no such architecture.
    """
    shape = _parse(architecture)
    size = image_size or (32 if shape.small_stem else 224)
    usual_mean, usual_std = CIFAR10 if size <= SMALL_IMAGE else IMAGENET
    dim = 8 * shape.width * _BLOCKS[shape.depth][0].expansion
    shapes, groups = _described(shape)
    return Encoder(
        name=architecture,
        family="resnet",
        image_size=size,
        fixed_size=False,
        mean=mean or usual_mean,
        std=std or usual_std,
        embedding_dim=dim,
        shapes=shapes,
        groups=groups,
        sections=SECTIONS,
        backbone=partial(_ScaledResNet, shape),
        spellings=_by_index(shapes),
        head=head or default_head(dim),
    )


def _by_index(shapes: Shapes) -> tuple[Spelling, ...]:
    """The names when the children of the ResNet stand in a Sequential, without the last one.

    BadEncoder and DECREE leave max-pooling out (``f.f.3`` is the first stage), lightly's tutorials
    do not, and its ResNet for small images has no modules for activations either.
    """
    return tuple(
        {
            name: name.replace(child, str(place), 1)
            for name in shapes
            for child, place in zip(_CHILDREN, places, strict=True)
            if name.startswith(f"{child}.")
        }
        for places in _PLACES
    )


def _parse(architecture: str) -> _Backbone:
    match = _NAME.fullmatch(architecture)
    if match is None:
        known = ", ".join(simclr_architectures())
        raise ConfigError(
            f"unknown architecture {architecture!r}; known are {known}, and narrower ones such as "
            "simclr/resnet18-w16-cifar"
        )
    depth, width, stem = match.groups()
    return _Backbone(int(depth), int(width or 64), stem is not None)


@cache
def _described(shape: _Backbone) -> tuple[Shapes, PermutationSpec]:
    with torch.device("meta"):
        module = _ScaledResNet(shape)
    return shapes_of(module), resnet_spec(module, BACKBONE)
