"""Few labels: the same number of bank images of every class."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from sslpurify.errors import DataError
from sslpurify.rng import generator


def draw_shots(
    labels: Int[Tensor, " n"], shots: int, classes: Sequence[str], seed: int
) -> Int[Tensor, " m"]:
    """Rows of a bank with ``shots`` images of every class, in the order of the bank.

    With one seed, few shots are among more of them, and no class's draw depends on another class.

    Args:
        labels: The bank's classes, each in [0, len(classes)).
        shots: Images of each class, at least 1.
        classes: Names of the classes.
        seed: Decides which images.

    Raises:
        DataError: A class has fewer images.
    """
    rows: list[Tensor] = []
    for label, name in enumerate(classes):
        members = (labels == label).nonzero()[:, 0]
        if len(members) < shots:
            raise DataError(
                f"{shots} shots: the bank holds {len(members)} images of class {name!r}; "
                "take fewer shots, or give it more images"
            )
        order = torch.randperm(len(members), generator=generator(seed, "shots", label))
        rows.append(members[order[:shots]])
    return torch.cat(rows).sort().values
