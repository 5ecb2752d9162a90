"""The label-free losses of the families: two views, an image and its caption."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from sslpurify.encoders.encoder import Output
from sslpurify.losses import info_nce, nt_xent, siglip

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
    """What the frozen text tower makes of prompts that any image can be described by.

    Args:
        embeddings: Of length 1.
        scale: As of captions.
        bias: As of captions.
    """

    embeddings: Float[Tensor, "v d"]
    scale: float
    bias: float | None = None

    def nearest(self, images: Float[Tensor, "n d"], count: int) -> Captions:
        """Pseudo-captions: the ``count`` prompts that each image is most similar to.

        Args:
            images: Their embeddings by the encoder that is to be purified; any length.
            count: At least 1; at most as many as there are prompts are taken.
        """
        similarities = F.normalize(images, dim=1) @ self.embeddings.T
        choices = similarities.topk(min(count, len(self.embeddings)), dim=1).indices
        return Captions(self.embeddings, choices, self.scale, self.bias)


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
