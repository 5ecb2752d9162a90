"""What happens along a curve, seen without labels: loss, and agreement with the input encoder."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from sslpurify.journal import FORGETFUL, Journal
from sslpurify.types import Listener, Piece, Step, silent

NEIGHBOURS = 10


@dataclass(frozen=True)
class Point:
    """One point of a curve.

    Args:
        t: Position, in [0, 1].
        loss: Label-free loss on clean images.
        agreement: Mean cosine between its embeddings and the input encoder's, in [-1, 1].
        overlap: Share of each image's 10 nearest neighbours among the clean images that the input
            encoder agrees on, in [0, 1].
    """

    t: float
    loss: float
    agreement: float
    overlap: float


@dataclass(frozen=True)
class Profile:
    """Points along one curve, in the order of t, and the one that was taken."""

    points: tuple[Point, ...]
    chosen: float


Measure = Callable[[float], tuple[float, Float[Tensor, "n d"]]]
"""t -> label-free loss and clean embeddings of the network at t, BatchNorm re-estimated."""


def survey(
    measure: Measure,
    reference: Float[Tensor, "n d"],
    positions: Sequence[float],
    *,
    stage: str = "profile",
    journal: Journal = FORGETFUL,
    listener: Listener = silent,
) -> tuple[Point, ...]:
    """Measures points along a curve.

    Args:
        measure: Evaluates one point.
        reference: The input encoder's embeddings of the same images.
        positions: Values of t, in [0, 1].
        stage: What is running, for people.
        journal: Remembers the points that an earlier process measured.
        listener: Told about every point.
    """
    wanted = F.normalize(reference, dim=1)
    neighbours = nearest(wanted)

    def measured(number: int, t: float) -> Piece:
        loss, embeddings = measure(t)
        found = F.normalize(embeddings, dim=1)
        agreement = float((found * wanted).sum(1).mean())
        point = Point(t, loss, agreement, overlap(nearest(found), neighbours))
        listener(Step(stage, number, len(positions), len(reference), loss))
        return Piece(facts=asdict(point))

    pieces = [
        journal.once(f"{stage} · {number}", partial(measured, number, t))
        for number, t in enumerate(positions, 1)
    ]
    return tuple(Point(**piece.facts) for piece in pieces)


def nearest(embeddings: Float[Tensor, "n d"], count: int = NEIGHBOURS) -> Int64[Tensor, "n k"]:
    """Indices of each unit-length embedding's nearest others (all others, if fewer than count)."""
    rows: list[Tensor] = []
    for start in range(0, len(embeddings), 1024):
        similarity = embeddings[start : start + 1024] @ embeddings.T
        itself = torch.arange(start, start + len(similarity))
        similarity[itself - start, itself] = -torch.inf
        rows.append(similarity.topk(min(count, len(embeddings) - 1), dim=1).indices)
    return torch.cat(rows)


def overlap(found: Int64[Tensor, "n k"], wanted: Int64[Tensor, "n k"]) -> float:
    """Mean share of the wanted neighbours that were found, in [0, 1]."""
    return float((found.unsqueeze(2) == wanted.unsqueeze(1)).any(2).float().mean())
