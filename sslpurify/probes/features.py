"""What an embedding must be before a probe may vote on it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sslpurify.errors import CheckpointError, DataError

# Mean squared distance of unit embeddings from their centre below which float32 inner products
# no longer tell images apart; a randomly initialised ResNet-18 lies near 1e-1.
_COLLAPSED = 1e-6


def usable(features: Float[Tensor, "n d"], what: str) -> Float[Tensor, "n d"]:
    """The features scaled to unit length, as float32 on the CPU, once they are worth a vote.

    Args:
        features: One embedding a row.
        what: Name of the image set in error messages.

    Raises:
        CheckpointError: When an embedding is NaN, infinite or zero: the encoder is at fault.
        DataError: When there is no embedding at all.
    """
    if features.numel() == 0:
        raise DataError(f"{what}: no embeddings to probe ({tuple(features.shape)})")
    features = features.detach().float().cpu()
    norms = torch.linalg.vector_norm(features, dim=1)
    bad = ~norms.isfinite()
    if bad.any():
        raise CheckpointError(
            f"{what}: {int(bad.sum())} of {len(bad)} embeddings are NaN or infinite, the first "
            f"is row {int(bad.nonzero()[0])}: the encoder's weights or statistics are unusable"
        )
    dead = norms == 0
    if dead.any():
        raise CheckpointError(
            f"{what}: {int(dead.sum())} of {len(dead)} embeddings are all zero, the first is row "
            f"{int(dead.nonzero()[0])}: the encoder is dead on these images"
        )
    return features / norms[:, None]


def require_spread(unit: Float[Tensor, "n d"], what: str, of: str = "images") -> None:
    """Refuse a bank whose embeddings are nearly all the same.

    For the bank (or class names) only: triggered queries of a backdoored encoder *are* one point.

    Args:
        unit: Embeddings of unit length.
        what: Name of the set in error messages.
        of: What it holds.

    Raises:
        CheckpointError: When the mean squared distance from the centre is below 1e-6.
    """
    centred = unit - unit.mean(dim=0)
    spread = float(centred.square().sum(dim=1).mean())
    if spread < _COLLAPSED:
        raise CheckpointError(
            f"{what}: the embeddings of {len(unit)} {of} are collapsed, nearly all are the same "
            f"(mean squared distance from their centre {spread:.1e}): "
            "the encoder is damaged or was not loaded as it was trained"
        )


def prepare(
    bank: Float[Tensor, "n d"],
    labels: Int[Tensor, " n_labels"],
    queries: Float[Tensor, "m e"],
    classes: int,
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    """Bank and queries of unit length, checked against each other and the labels.

    Raises:
        DataError: When labels and bank differ in length, a label is no class, sizes of the
            embeddings differ, or a set is empty.
        CheckpointError: When embeddings are not finite, zero, or (of the bank) collapsed.
    """
    if bank.shape[1] != queries.shape[1]:
        raise DataError(
            f"bank embeddings have {bank.shape[1]} dimensions, queries {queries.shape[1]}: "
            "they come from different encoders"
        )
    if len(bank) != len(labels):
        raise DataError(f"{len(bank)} bank embeddings but {len(labels)} labels")
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise DataError(f"label {int(labels[row])} in row {row} is none of the {classes} classes")
    unit = usable(bank, "bank")
    require_spread(unit, "bank")
    return unit, usable(queries, "queries")
