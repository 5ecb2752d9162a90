"""The permutation groups of torchvision's ResNets (He et al. 2016), read off the module itself."""

from collections.abc import Iterator

from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from sslpurify.encoders.specs.convolutions import Residual, unmoved, walk, writes
from sslpurify.encoders.specs.naming import under
from sslpurify.errors import ConfigError
from sslpurify.symmetry.spec import Fixed, PermutationSpec, fixed_axes


def resnet_spec(module: ResNet, prefix: str = "backbone.") -> PermutationSpec:
    """Groups of a ResNet of basic or bottleneck blocks, with an ImageNet or a CIFAR stem.

    An ``inner`` group is the channels between two convolutions of a block. A ``residual`` group is
    a stream: all that writes to it and all that reads it, until a block with a downsample branch
    begins the next one. It is watched where it is complete, at the input of that block. The last
    stream is the embedding and stays fixed.

    Args:
        module: Only its layout is read, never its weights; may lie on the meta device.
        prefix: Where the module lies within the network, in tensor names and module names.

    Returns:
        The groups in the order of the forward pass, and every axis that they leave alone, so that
        the specification is complete for the module's own tensors.

    Raises:
        ConfigError: If a block is of another kind, a convolution is grouped, or a normalization is
            not BatchNorm: their channels may not be exchangeable.
    """
    groups, last = walk(module, writes(module, "conv1", "bn1"), _blocks(module))
    classifier = fixed_axes({f"fc.{k}": tuple(v.shape) for k, v in module.fc.state_dict().items()})
    embedding = (Fixed(touch.name, touch.dim) for touch in last.touches)
    fixed = (*unmoved(module), *classifier, *embedding)
    return under(prefix, PermutationSpec(tuple(groups), fixed))


def resnet_sections(module: ResNet) -> tuple[tuple[str, ...], ...]:
    """The stem with the first stage, the second, the third, the fourth with the classifier."""
    classifier = ("fc",) if module.fc.state_dict() else ()
    return (("conv1", "bn1", "layer1"), ("layer2",), ("layer3",), ("layer4", *classifier))


def _blocks(module: ResNet) -> Iterator[Residual]:
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in module.get_submodule(stage).named_children():
            if not isinstance(block, BasicBlock | Bottleneck):
                raise ConfigError(f"{stage}.{number} is no ResNet block but {type(block).__name__}")
            yield Residual(f"{stage}.{number}", 3 if isinstance(block, Bottleneck) else 2)
