"""What an encoder is to the rest of the package: a network, its image format, its symmetry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslpurify.encoders.head import HeadLayout, projection_head
from sslpurify.encoders.seeded import seeded
from sslpurify.encoders.text import TextSide
from sslpurify.symmetry.spec import PermutationSpec, Shapes, fixed_axes
from sslpurify.types import State

Channels = tuple[float, float, float]
Family = Literal["resnet", "modified-resnet", "vit"]
Sections = tuple[tuple[str, ...], ...]
Spelling = Mapping[str, str]
"""Our name of a tensor -> its name in a file, before the prefix; names that are alike left out."""

BACKBONE, HEAD = "backbone.", "projection_head."


class Output(NamedTuple):
    """What a network makes of n images."""

    embedding: Float[Tensor, "n d"]
    projection: Float[Tensor, "n p"]


class Network(nn.Module):
    """Normalization, backbone and projection head, on images in [0, 1].

    Args:
        backbone: Normalized images (n, 3, h, w) to what ``read`` takes embeddings (n, d) from.
        projection_head: Embeddings to the projections (n, p) that the label-free loss sees.
        mean: Subtracted from each channel.
        std: Divides each channel afterwards.
        read: Takes the embeddings out of what the backbone returns.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        projection_head: nn.Module,
        mean: Channels,
        std: Channels,
        read: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection_head = projection_head
        self._read = read
        # How images are normalized is no part of anybody's checkpoint.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Output:
        """Embeds and projects images."""
        seen = self.backbone((images - self.mean) / self.std)
        embedding = seen if self._read is None else self._read(seen)
        return Output(embedding, self.projection_head(embedding))

    def weights(self) -> dict[str, Tensor]:
        """The state as a value: on the CPU, in the memory order that files have, not shared."""
        return {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.state_dict().items()
        }


def shapes_of(module: nn.Module) -> Shapes:
    """Shape of every tensor of a module, which may lie on the meta device."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def below(prefix: str, sections: Sections) -> Sections:
    """The sections of a module as those of the network that holds it."""
    return tuple(tuple(prefix + name for name in section) for section in sections)


@dataclass(frozen=True)
class Encoder:
    """A family member: how to build it, what it eats, and what may be permuted in it.

    Args:
        name: As on the command line, ``simclr/resnet18``.
        family: What kind of network the backbone is.
        image_size: Height and width of the images it is used with, in pixels.
        fixed_size: Whether its weights belong to this image size (positional embeddings).
        mean: Of the normalization, per channel, for images in [0, 1].
        std: Of the normalization.
        embedding_dim: Length d of an embedding.
        shapes: Shape of every tensor of the backbone, by the library's own names.
        groups: The backbone's permutation groups.
        sections: The backbone's tensors by depth, from the image to the embedding: each section is
            names of modules or parameters of the network, which stand for all tensors below them.
        backbone: Makes the backbone, with weights drawn from torch's global generator.
        read: As of `Network`.
        spellings: Other names under which files keep the backbone's tensors.
        head: Shape of its projection head; None: its loss is computed on embeddings.
        text: The text tower that belongs to its embeddings, if there is one.
    """

    name: str
    family: Family
    image_size: int
    fixed_size: bool
    mean: Channels
    std: Channels
    embedding_dim: int
    shapes: Shapes
    groups: PermutationSpec
    sections: Sections
    backbone: Callable[[], nn.Module]
    read: Callable[[Any], Tensor] | None = None
    spellings: tuple[Spelling, ...] = ()
    head: HeadLayout | None = None
    text: TextSide | None = None

    @property
    def spec(self) -> PermutationSpec:
        """The permutation groups; no axis of the projection head is ever moved."""
        shapes = {} if self.head is None else self.head.shapes(self.embedding_dim)
        in_head = fixed_axes({HEAD + name: shape for name, shape in shapes.items()})
        return PermutationSpec(self.groups.groups, self.groups.fixed + in_head)

    def fresh(self, seed: int) -> Network:
        """A network with initial weights that are a function of ``seed``."""
        return seeded(self._make, seed)

    def completed(self, state: State) -> dict[str, Tensor]:
        """The state, and where it lacks a head, one that no embedding depends on."""
        return {**self.fresh(0).state_dict(), **state}

    def load(self, state: State) -> Network:
        """A network that holds a copy of ``state``, in evaluation mode."""
        network = self.fresh(0)
        network.load_state_dict(dict(state))
        return network.eval()

    def _make(self) -> Network:
        backbone = self.backbone()  # first: what it draws does not depend on the head
        head = (
            nn.Identity() if self.head is None else projection_head(self.embedding_dim, self.head)
        )
        return Network(backbone, head, self.mean, self.std, self.read)
