"""The text tower of a CLIP: captions to embeddings in the images' space; frozen in purification."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sslpurify.encoders.seeded import seeded
from sslpurify.symmetry.spec import Shapes
from sslpurify.types import Listener, State, Step, silent

Tokenize = Callable[[Sequence[str]], Tensor]
"""Captions -> token numbers (n, context length)."""


class TextTower(nn.Module):
    """A text network with CLIP's ``logit_scale`` and, where it has one, ``logit_bias``.

    Args:
        network: Tokens (n, length) to what ``read`` takes embeddings (n, d) from.
        read: Takes the embeddings out of what the network returns.
        logit_bias: Whether the model has a bias (SigLIP).
    """

    def __init__(
        self,
        network: nn.Module,
        read: Callable[[Any], Tensor] | None = None,
        *,
        logit_bias: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self._read = read
        self.logit_scale = nn.Parameter(torch.tensor(2.6593))  # ln(1 / 0.07), as CLIP begins
        self.logit_bias = nn.Parameter(torch.tensor(-10.0)) if logit_bias else None

    def forward(self, tokens: Int[Tensor, "n length"]) -> Float[Tensor, "n d"]:
        """Embeds tokenized captions."""
        seen = self.network(tokens)
        return seen if self._read is None else self._read(seen)

    @property
    def scale(self) -> float:
        """What multiplies cosine similarities: exp of ``logit_scale``."""
        return float(self.logit_scale.detach().exp())

    @property
    def bias(self) -> float | None:
        """What is added to the scaled similarities, for the models that have it."""
        return None if self.logit_bias is None else float(self.logit_bias.detach())


@dataclass(frozen=True)
class TextSide:
    """How to build a text tower, and how its captions are tokenized.

    Args:
        shapes: Shape of every tensor of the tower, by our names.
        make: Makes the tower with initial weights.
        tokenize: Its tokenizer; raises ConfigError where its files are not at hand.
        names: Our name -> the file's, before the prefix that stands before the whole model.
    """

    shapes: Shapes
    make: Callable[[], TextTower]
    tokenize: Tokenize
    names: Callable[[str], tuple[str, ...]]

    def fresh(self, seed: int) -> TextTower:
        """A tower with initial weights that are a function of ``seed``."""
        return seeded(self.make, seed)

    def load(self, state: State) -> TextTower:
        """A tower that holds a copy of ``state``, in evaluation mode and frozen."""
        tower = self.fresh(0)
        tower.load_state_dict(dict(state))
        return tower.eval().requires_grad_(requires_grad=False)


def embed_captions(
    tower: TextTower,
    tokenize: Tokenize,
    captions: Sequence[str],
    *,
    batch_size: int = 256,
    device: torch.device | None = None,
    listener: Listener = silent,
) -> Float[Tensor, "n d"]:
    """The embeddings of captions, of length 1, in float32 on the CPU; equal captions once.

    The tower must be in evaluation mode on ``device``.
    """
    unique = list(dict.fromkeys(captions))
    parts: list[Tensor] = []
    steps = -(-len(unique) // batch_size)
    with torch.inference_mode():
        for number in range(steps):
            some = unique[number * batch_size : (number + 1) * batch_size]
            tokens = tokenize(some)
            parts.append(tower(tokens if device is None else tokens.to(device)).float().cpu())
            listener(Step("embedding captions", number + 1, steps, len(some)))
    rows = {caption: row for row, caption in enumerate(unique)}
    embedded = F.normalize(torch.cat(parts), dim=1).clone()
    return embedded[torch.tensor([rows[caption] for caption in captions])]
