"""What embeddings look like: a map in two directions, and the images nearest to a few."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

Seen = tuple[Float[Tensor, "m d"], Float[Tensor, "m d"] | None]
"""One encoder's embeddings of the clean test images, and of the same with the trigger."""

POINTS = 300
NEIGHBOURS = 5
_MARGIN = 0.05


def spread(count: int, wanted: int) -> Int64[Tensor, " k"]:
    """Rows at even distances, the same for every run: sorted images give all classes their share.

    >>> spread(10, 3).tolist()
    [0, 4, 9]
    """
    return torch.linspace(0, count - 1, min(count, wanted)).long()


def embedding_map(
    seen: Mapping[str, Seen], labels: Int64[Tensor, " m"], points: int = POINTS
) -> dict[str, Any]:
    """Clean and triggered embeddings of several encoders on the same two directions.

    The directions are the two in which the first encoder's clean embeddings, of unit length, vary
    most (principal component analysis, exact); the others' are seen on them too.

    Args:
        seen: By encoder; the first one gives the directions. The dimensions of all mean the same.
        labels: Classes of the same test images.
        points: Most images that are shown, at even distances.

    Returns:
        Plain data: ``explained`` (share of the variance in each direction, of the first encoder),
        ``labels`` of the images shown, ``limits`` ((x, x), (y, y)) that hold everything, and by
        encoder the places of its ``clean`` and ``triggered`` images (None without trigger).
    """
    centre, directions, explained = _directions(next(iter(seen.values()))[0])
    rows = spread(len(labels), points)

    def placed(embeddings: Tensor | None) -> list[list[float]] | None:
        if embeddings is None:
            return None
        places = (_unit(embeddings[rows]) - centre) @ directions
        return [[round(value, 4) for value in place] for place in places.tolist()]

    encoders = {
        which: {"clean": placed(clean), "triggered": placed(triggered)}
        for which, (clean, triggered) in seen.items()
    }
    everything = [p for places in encoders.values() for some in places.values() for p in some or ()]
    return {
        "explained": [round(share, 4) for share in explained],
        "labels": labels[rows].tolist(),
        "limits": _limits(torch.tensor(everything)),
        "encoders": encoders,
    }


def nearest(
    bank: Float[Tensor, "n d"],
    queries: Float[Tensor, "m d"],
    count: int = NEIGHBOURS,
    *,
    except_for: Int64[Tensor, " m"] | None = None,
) -> tuple[Float64[Tensor, "m k"], Int64[Tensor, "m k"]]:
    """Each query's nearest embeddings of a bank by cosine, nearest first: cosines and rows.

    Args:
        bank: Any scale.
        queries: Any scale.
        count: Neighbours of each, as far as there are so many.
        except_for: The row of the bank that each query must not find; None: it may find any.
    """
    cosines = _unit(queries) @ _unit(bank).T
    if except_for is not None:
        cosines[torch.arange(len(queries)), except_for] = -torch.inf
    found = cosines.topk(min(count, len(bank) - (except_for is not None)), dim=1)
    return found.values, found.indices


def _directions(embeddings: Tensor) -> tuple[Tensor, Tensor, list[float]]:
    """Centre, the two main directions as columns, and their shares of the variance."""
    unit = _unit(embeddings)
    centre = unit.mean(dim=0)
    values, vectors = torch.linalg.eigh((unit - centre).T @ (unit - centre))
    directions = vectors[:, [-1, -2]]
    # Either sign is a solution; machines shall agree on one.
    heaviest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    shares = values[[-1, -2]].clamp(min=0) / values.clamp(min=0).sum().clamp(min=1e-12)
    return centre, directions * heaviest.sign(), shares.tolist()


def _limits(places: Tensor) -> list[list[float]]:
    """A square around all places."""
    low, high = places.amin(dim=0), places.amax(dim=0)
    middle = (low + high) / 2
    half = float((high - low).amax().clamp(min=1e-3)) * (0.5 + _MARGIN)
    return [[round(m - half, 4), round(m + half, 4)] for m in middle.tolist()]


def _unit(embeddings: Tensor) -> Tensor:
    return F.normalize(embeddings.double(), dim=1)
