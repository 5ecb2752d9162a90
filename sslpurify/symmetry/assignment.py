"""The linear assignment problem."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

Sense = Literal["align", "misalign"]
"""``"align"`` maximizes the total score, ``"misalign"`` minimizes it."""


def linear_assignment(scores: Float[Tensor, "rows columns"], sense: Sense) -> Int64[Tensor, " n"]:
    """The one-to-one assignment of columns to rows with the largest or smallest total score.

    Args:
        scores: Square and finite; ``scores[i, j]`` is for unit ``j`` of the network that will be
            permuted taking position ``i``.
        sense: Whether to maximize (``"align"``) or to minimize (``"misalign"``) the total.

    Returns:
        The permutation, on the CPU: unit ``result[i]`` goes to position ``i``.

    Raises:
        ValueError: If ``scores`` is not square or not finite.

    >>> linear_assignment(torch.tensor([[0.0, 1.0], [1.0, 0.5]]), "align").tolist()
    [1, 0]
    """
    rows, columns = scores.shape
    if rows != columns:
        raise ValueError(f"linear assignment: {rows} rows by {columns} columns is not square")
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("linear assignment: the scores hold NaN or infinity")
    _, order = linear_sum_assignment(scores.detach().cpu().numpy(), maximize=sense == "align")
    return torch.from_numpy(order).to(torch.int64)
