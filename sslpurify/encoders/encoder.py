"""What an encoder is to the rest of the package: a network, its image format, its symmetry."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslpurify.symmetry.spec import PermutationSpec
from sslpurify.types import State

Channels = tuple[float, float, float]


class Output(NamedTuple):
    """What a network makes of n images."""

    embedding: Float[Tensor, "n d"]
    projection: Float[Tensor, "n p"]


class Network(nn.Module):
    """Normalization, backbone and projection head, on images in [0, 1].

    Args:
        backbone: Normalized images (n, 3, h, w) to embeddings (n, d).
        projection_head: Embeddings to the projections (n, p) that the label-free loss sees.
        mean: Subtracted from each channel.
        std: Divides each channel afterwards.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, projection_head: nn.Module, mean: Channels, std: Channels
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection_head = projection_head
        # How images are normalized is no part of anybody's checkpoint.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Output:
        """Embeds and projects images."""
        embedding = self.backbone((images - self.mean) / self.std)
        return Output(embedding, self.projection_head(embedding))

    def weights(self) -> dict[str, Tensor]:
        """The state as a value: on the CPU, in the memory order that files have, not shared."""
        return {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.state_dict().items()
        }


@dataclass(frozen=True)
class Encoder:
    """A family member: how to build it, what it eats, and what may be permuted in it.

    Args:
        name: As on the command line, ``simclr/resnet18``.
        image_size: Height and width of the images it is used with, in pixels.
        mean: Of the normalization, per channel, for images in [0, 1].
        std: Of the normalization.
        embedding_dim: Length d of an embedding.
        spec: Its permutation groups.
        sections: The backbone's modules by depth, from the image to the embedding: each section is
            the names of some modules of the network.
        make: Makes a network with initial weights drawn from torch's global generator, as layers
            do; use `fresh` or `load` instead.
    """

    name: str
    image_size: int
    mean: Channels
    std: Channels
    embedding_dim: int
    spec: PermutationSpec
    sections: tuple[tuple[str, ...], ...]
    make: Callable[[], Network]

    def fresh(self, seed: int) -> Network:
        """A network with initial weights that are a function of ``seed``."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # and not the GPUs', which are not forked
            return self.make()

    def load(self, state: State) -> Network:
        """A network that holds a copy of ``state``, in evaluation mode."""
        network = self.fresh(0)
        network.load_state_dict(dict(state))
        return network.eval()
