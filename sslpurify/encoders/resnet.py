"""The permutation groups of torchvision's ResNets (He et al. 2016), read off the module itself."""

from collections.abc import Iterator

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from sslpurify.errors import ConfigError
from sslpurify.symmetry.spec import (
    Fixed,
    Group,
    Kind,
    PermutationSpec,
    Probe,
    Touch,
    View,
    fixed_axes,
)


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
    groups: list[Group] = []
    stream, touches = "stem", [*_writes(module, "conv1", "bn1", prefix)]
    for name, block in _blocks(module):
        reads = [_reads(f"{name}.conv1", prefix)]
        if block.downsample is None:
            touches += reads
        else:
            reads.append(_reads(f"{name}.downsample.0", prefix))
            width = block.conv1.in_channels
            groups.append(_group(stream, width, [*touches, *reads], prefix + name, "residual"))
            stream = name
            touches = [*_writes(module, f"{name}.downsample.0", f"{name}.downsample.1", prefix)]
        last = 3 if isinstance(block, Bottleneck) else 2
        groups += (_inner(module, name, number, prefix) for number in range(1, last))
        touches += _writes(module, f"{name}.conv{last}", f"{name}.bn{last}", prefix)
    embedding = (Fixed(touch.name, touch.dim) for touch in touches)
    return PermutationSpec(tuple(groups), (*_unmoved(module, prefix), *embedding))


def _blocks(module: ResNet) -> Iterator[tuple[str, BasicBlock | Bottleneck]]:
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in module.get_submodule(stage).named_children():
            if not isinstance(block, BasicBlock | Bottleneck):
                raise ConfigError(f"{stage}.{number} is no ResNet block but {type(block).__name__}")
            yield f"{stage}.{number}", block


def _inner(module: ResNet, block: str, number: int, prefix: str) -> Group:
    """The channels from a block's convolution of this number to the next."""
    name, reader = f"{block}.conv{number}", f"{block}.conv{number + 1}"
    touches = [*_writes(module, name, f"{block}.bn{number}", prefix), _reads(reader, prefix)]
    width = _convolution(module, name).out_channels
    return _group(name, width, touches, prefix + reader, "inner")


def _group(name: str, size: int, touches: list[Touch], reader: str, kind: Kind) -> Group:
    return Group(name, size, tuple(touches), (View(Probe(reader)),), kind)


def _reads(convolution: str, prefix: str) -> Touch:
    return Touch(f"{prefix}{convolution}.weight", 1)


def _writes(module: ResNet, convolution: str, norm: str, prefix: str) -> Iterator[Touch]:
    """The output channels of a convolution and the BatchNorm behind it, running statistics too."""
    batch_norm = module.get_submodule(norm)
    if not isinstance(batch_norm, nn.BatchNorm2d | nn.SyncBatchNorm):
        raise ConfigError(f"{norm} is {type(batch_norm).__name__}, which is not described here")
    for name in _convolution(module, convolution).state_dict():
        yield Touch(f"{prefix}{convolution}.{name}", 0)
    for name, tensor in batch_norm.state_dict().items():
        if tensor.ndim == 1:
            yield Touch(f"{prefix}{norm}.{name}", 0)


def _convolution(module: ResNet, name: str) -> nn.Conv2d:
    convolution = module.get_submodule(name)
    if not isinstance(convolution, nn.Conv2d) or convolution.groups != 1:
        raise ConfigError(f"{name} is not a plain convolution, so its channels cannot be reordered")
    return convolution


def _unmoved(module: ResNet, prefix: str) -> Iterator[Fixed]:
    """Image channels, kernels, and a classifier if there is one."""
    yield Fixed(f"{prefix}conv1.weight", 1)
    for name, tensor in module.state_dict().items():
        if tensor.ndim == 4:
            yield from (Fixed(prefix + name, dim) for dim in (2, 3) if tensor.shape[dim] > 1)
    yield from fixed_axes(
        {f"{prefix}fc.{name}": tuple(t.shape) for name, t in module.fc.state_dict().items()}
    )
