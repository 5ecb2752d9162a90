"""What ResNets of every make share: convolutions, the BatchNorm behind them, and streams."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from torch import nn

from sslpurify.encoders.specs.naming import has
from sslpurify.errors import ConfigError
from sslpurify.symmetry.spec import Fixed, Group, Kind, Probe, Touch, View


class Residual(NamedTuple):
    """A residual block: its name, and how many convolutions ``conv1``, ``conv2``... are in it."""

    name: str
    convolutions: int


class Stream(NamedTuple):
    """A residual stream that no block has replaced yet: its name, and all that touches it."""

    name: str
    touches: tuple[Touch, ...]


def reads(convolution: str) -> Touch:
    """The input channels of a convolution."""
    return Touch(f"{convolution}.weight", 1)


def writes(module: nn.Module, convolution: str, norm: str) -> Iterator[Touch]:
    """The output channels of a convolution and the BatchNorm behind it, running statistics too.

    Raises:
        ConfigError: If the convolution is grouped or the normalization is not BatchNorm: their
            channels may not be exchangeable.
    """
    batch_norm = module.get_submodule(norm)
    if not isinstance(batch_norm, nn.BatchNorm2d | nn.SyncBatchNorm):
        raise ConfigError(f"{norm} is {type(batch_norm).__name__}, which is not described here")
    for name in plain_convolution(module, convolution).state_dict():
        yield Touch(f"{convolution}.{name}", 0)
    for name, tensor in batch_norm.state_dict().items():
        if tensor.ndim == 1:
            yield Touch(f"{norm}.{name}", 0)


def plain_convolution(module: nn.Module, name: str) -> nn.Conv2d:
    """A convolution whose channels may be reordered; `ConfigError` if they may not."""
    convolution = module.get_submodule(name)
    if not isinstance(convolution, nn.Conv2d) or convolution.groups != 1:
        raise ConfigError(f"{name} is not a plain convolution, so its channels cannot be reordered")
    return convolution


def between(module: nn.Module, name: str, norm: str, reader: str) -> Group:
    """The channels from one convolution to the next, watched where the next one reads them."""
    touches = [*writes(module, name, norm), reads(reader)]
    return conv_group(name, plain_convolution(module, name).out_channels, touches, reader, "inner")


def conv_group(name: str, size: int, touches: Iterable[Touch], reader: str, kind: Kind) -> Group:
    """A group of channels, watched at the input of a module that reads them."""
    return Group(name, size, tuple(touches), (View(Probe(reader)),), kind)


def walk(
    module: nn.Module, stem: Iterable[Touch], blocks: Iterable[Residual]
) -> tuple[list[Group], Stream]:
    """The groups of a trunk in the order of the forward pass, and the stream that leaves it.

    A stream goes on until a block with a downsample branch begins the next one, and is watched
    where it is complete: at the input of that block.
    """
    groups: list[Group] = []
    stream, touches = "stem", [*stem]
    for name, convolutions in blocks:
        incoming = [reads(f"{name}.conv1")]
        if not has(module, f"{name}.downsample"):
            touches += incoming
        else:
            incoming.append(reads(f"{name}.downsample.0"))
            width = plain_convolution(module, f"{name}.conv1").in_channels
            groups.append(conv_group(stream, width, [*touches, *incoming], name, "residual"))
            stream = name
            touches = [*writes(module, f"{name}.downsample.0", f"{name}.downsample.1")]
        groups += (
            between(module, f"{name}.conv{i}", f"{name}.bn{i}", f"{name}.conv{i + 1}")
            for i in range(1, convolutions)
        )
        touches += writes(module, f"{name}.conv{convolutions}", f"{name}.bn{convolutions}")
    return groups, Stream(stream, tuple(touches))


def unmoved(module: nn.Module) -> Iterator[Fixed]:
    """Image channels and kernels."""
    yield Fixed("conv1.weight", 1)
    for name, tensor in module.state_dict().items():
        if tensor.ndim == 4:
            yield from (Fixed(name, dim) for dim in (2, 3) if tensor.shape[dim] > 1)
