"""The label-free losses of the families: two views, an image and its caption, soft captions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from sslpurify.encoders.encoder import Output
from sslpurify.losses import info_nce, nt_xent, siglip, soft_targets

GuideLoss = Callable[[Sequence[Output], Tensor, torch.Generator], Tensor]
"""(what the network made of b images, by view; which images of the set they are; a generator for
what the loss draws) -> scalar."""


@dataclass(frozen=True)
class Guide:
    """A label-free loss on some of the images of a set.

    Args:
        views: Views of every image that it compares.
        loss: What becomes of them.
    """

    views: int
    loss: GuideLoss


@dataclass(frozen=True, eq=False)
class Captions:
    """What the frozen text tower makes of the captions of an image set.

    Args:
        embeddings: Of all different captions, of length 1.
        choices: For every image the rows of its captions.
        scale: Of the similarities: exp of the model's ``logit_scale``.
        bias: SigLIP's ``logit_bias``, None for models without.
    """

    embeddings: Float[Tensor, "c d"]
    choices: Int64[Tensor, "n k"]
    scale: float
    bias: float | None = None

    def drawn(self, indices: Int64[Tensor, " b"], draws: torch.Generator) -> Float[Tensor, "b d"]:
        """The embedding of one caption of each of these images."""
        rows = self.choices[indices]
        column = torch.randint(rows.shape[1], (len(rows), 1), generator=draws)
        return self.embeddings[rows.gather(1, column)[:, 0]]


@dataclass(frozen=True, eq=False)
class Prompts:
    """What the frozen text tower makes of prompts that any image can be compared with.

    Args:
        embeddings: Of length 1.
        scale: Of the similarities: exp of the model's ``logit_scale``.
    """

    embeddings: Float[Tensor, "v d"]
    scale: float

    def targets(self, embeddings: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        """Each image's distribution over the prompts: a softmax of scaled cosine similarities."""
        return (self.scale * F.normalize(embeddings, dim=1) @ self.embeddings.T).softmax(1)


def by_views(temperature: float) -> Guide:
    """SimCLR's loss: NT-Xent of the projections of two views."""
    contrast = nt_xent(temperature)

    def loss(outputs: Sequence[Output], _: Tensor, __: torch.Generator) -> Tensor:
        return contrast(outputs[0].projection, outputs[1].projection)

    return Guide(2, loss)


def by_captions(captions: Captions) -> Guide:
    """CLIP's loss against the frozen text tower: InfoNCE, or SigLIP's where it has a bias."""

    def loss(outputs: Sequence[Output], indices: Tensor, draws: torch.Generator) -> Tensor:
        embedding = outputs[0].embedding
        said = captions.drawn(indices, draws).to(embedding.device)
        if captions.bias is None:
            return info_nce(embedding, said, captions.scale)
        return siglip(embedding, said, captions.scale, captions.bias)

    return Guide(1, loss)


def by_soft_captions(
    prompts: Prompts, targets: Float[Tensor, "n v"], *, temperature: float, contrast: float
) -> Guide:
    """For images without captions: their own similarities to many prompts take the captions' place.

    NT-Xent of two views trains the image tower, and each view's distribution over the prompts is
    held to what the input encoder says of the plain image: that keeps the tower in the text tower's
    coordinates.

    Args:
        prompts: What images are compared with.
        targets: Each image's distribution over the prompts, by the input encoder.
        temperature: Of NT-Xent.
        contrast: Weight of NT-Xent, against 1 for the prompts.
    """
    apart = nt_xent(temperature)

    def loss(outputs: Sequence[Output], indices: Tensor, _: torch.Generator) -> Tensor:
        first, second = outputs
        device = first.embedding.device
        wanted, shown = targets[indices].to(device), prompts.embeddings.to(device)
        held = [soft_targets(view.embedding, shown, wanted, prompts.scale) for view in outputs]
        return (held[0] + held[1]) / 2 + contrast * apart(first.projection, second.projection)

    return Guide(2, loss)
