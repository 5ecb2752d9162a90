"""The projection heads that can be read from a file: lightly's for SimCLR, and no other."""

from dataclasses import dataclass

from lightly.models.modules.heads import ProjectionHead
from torch import nn

from sslpurify.symmetry.spec import Shapes
from sslpurify.types import State

COUNTER = "num_batches_tracked"
"""BatchNorm's count of batches, which torch did not keep before version 0.4.1."""

_NAMES = ("projection_head", "projector", "projection", "proj_head", "head", "g")


@dataclass(frozen=True)
class HeadLayout:
    """The shape of lightly's ``SimCLRProjectionHead`` of two layers.

    Linear, BatchNorm, ReLU, Linear and, in recent versions, BatchNorm; a Linear has a bias exactly
    where no BatchNorm follows.

    Args:
        hidden: Width of the hidden layer.
        out: Length of a projection.
        last_norm: Whether a BatchNorm ends it.
    """

    hidden: int
    out: int
    last_norm: bool

    def shapes(self, embedding_dim: int) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of the head by lightly's name, on embeddings of this length."""
        last: Shapes = (
            _norm("layers.4", self.out) if self.last_norm else {"layers.3.bias": (self.out,)}
        )
        return {
            "layers.0.weight": (self.hidden, embedding_dim),
            **_norm("layers.1", self.hidden),
            "layers.3.weight": (self.out, self.hidden),
            **last,
        }


def default_head(embedding_dim: int) -> HeadLayout:
    """The head that is made where a checkpoint has none: as wide as the embedding, then 128."""
    return HeadLayout(hidden=embedding_dim, out=128, last_norm=True)


def projection_head(embedding_dim: int, head: HeadLayout) -> ProjectionHead:
    """The head of lightly, `SimCLRProjectionHead`, whose last BatchNorm older releases lack."""
    norm = nn.BatchNorm1d(head.out) if head.last_norm else None
    hidden = (embedding_dim, head.hidden, nn.BatchNorm1d(head.hidden), nn.ReLU())
    return ProjectionHead([hidden, (head.hidden, head.out, norm, None)])


def _norm(name: str, size: int) -> Shapes:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{vector}": (size,) for vector in vectors}, f"{name}.{COUNTER}": ()}


def find_head(
    tensors: State, prefix: str, embedding_dim: int
) -> tuple[dict[str, str], HeadLayout | None]:
    """The projection head inside the backbone's module, beside it or above.

    Returns:
        Its names to the file's keys, and its shape; nothing where there is none that fits.
    """
    parts = prefix.split(".")[:-1]
    above = ("".join(f"{part}." for part in parts[:depth]) for depth in range(len(parts), -1, -1))
    for place in sorted(above, key=lambda place: place == prefix):
        for name in _NAMES:
            for form in ("layers.", ""):  # lightly's, and a plain Sequential as BadEncoder's
                found = _head(tensors, f"{place}{name}.", form, embedding_dim)
                if found is not None:
                    keys = {
                        n: f"{place}{name}.{form}{n.removeprefix('layers.')}"
                        for n in found.shapes(embedding_dim)
                    }
                    return keys, found
    return {}, None


def _head(tensors: State, prefix: str, form: str, embedding_dim: int) -> HeadLayout | None:
    shapes = {
        f"layers.{key.removeprefix(prefix + form)}": tuple(tensor.shape)
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }
    first, last = shapes.get("layers.0.weight", ()), shapes.get("layers.3.weight", ())
    if len(first) != 2 or len(last) != 2:
        return None
    head = HeadLayout(first[0], last[0], last_norm="layers.4.weight" in shapes)
    counters = {name: () for name in head.shapes(embedding_dim) if name.endswith(COUNTER)}
    return head if counters | shapes == head.shapes(embedding_dim) else None
