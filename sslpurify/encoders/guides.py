"""The label-free losses of the families: two views, an image and its caption, soft captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from sslpurify.encoders.encoder import Output
from sslpurify.losses import info_nce, nt_xent, siglip, soft_targets


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


@dataclass(frozen=True)
class ViewGuide:
    """SimCLR's loss: NT-Xent of the projections of two views.

    Args:
        temperature: Of NT-Xent.
    """

    views: ClassVar[int] = 2
    temperature: float

    def __call__(
        self, outputs: Sequence[Output], indices: Int64[Tensor, " b"], draws: torch.Generator
    ) -> Float[Tensor, ""]:
        """The loss; see `Guide`."""
        return nt_xent(self.temperature)(outputs[0].projection, outputs[1].projection)


@dataclass(frozen=True, eq=False)
class CaptionGuide:
    """CLIP's loss against the frozen text tower: symmetric InfoNCE, or SigLIP's where it has a bias.

    Args:
        captions: Embedded once, before training.
    """

    views: ClassVar[int] = 1
    captions: Captions

    def __call__(
        self, outputs: Sequence[Output], indices: Int64[Tensor, " b"], draws: torch.Generator
    ) -> Float[Tensor, ""]:
        """The loss; see `Guide`."""
        embedding, captions = outputs[0].embedding, self.captions
        said = captions.drawn(indices, draws).to(embedding.device)
        if captions.bias is None:
            return info_nce(embedding, said, captions.scale)
        return siglip(embedding, said, captions.scale, captions.bias)


@dataclass(frozen=True, eq=False)
class SoftCaptionGuide:
    """For images without captions: their own similarities to many prompts take the captions' place.

    NT-Xent of two views trains the image tower, and each view's distribution over the prompts is
    held to what the input encoder says of the plain image: that keeps the tower in the text tower's
    coordinates.

    Args:
        prompts: Embeddings of the prompts, of length 1.
        targets: Each image's distribution over the prompts, by the input encoder.
        scale: Of the similarities.
        temperature: Of NT-Xent.
        weight: Of NT-Xent, against 1 for the prompts.
    """

    views: ClassVar[int] = 2
    prompts: Float[Tensor, "v d"]
    targets: Float[Tensor, "n v"]
    scale: float
    temperature: float
    weight: float

    def __call__(
        self, outputs: Sequence[Output], indices: Int64[Tensor, " b"], draws: torch.Generator
    ) -> Float[Tensor, ""]:
        """The loss; see `Guide`."""
        first, second = outputs
        prompts = self.prompts.to(first.embedding.device)
        wanted = self.targets[indices].to(first.embedding.device)
        held = [soft_targets(view.embedding, prompts, wanted, self.scale) for view in outputs]
        contrast = nt_xent(self.temperature)(first.projection, second.projection)
        return (held[0] + held[1]) / 2 + self.weight * contrast


def soft_captions(
    embeddings: Float[Tensor, "n d"], prompts: Float[Tensor, "v d"], scale: float
) -> Float[Tensor, "n v"]:
    """The distribution over prompts that a softmax of scaled cosine similarities gives."""
    return (scale * F.normalize(embeddings, dim=1) @ prompts.T).softmax(1)
