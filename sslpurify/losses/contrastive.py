"""Contrastive losses, taken from the libraries that users train with."""

from collections.abc import Callable

import torch
from lightly.loss import NTXentLoss
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""(projections of one view (n, p), projections of the other (n, p)) -> scalar."""


def nt_xent(temperature: float = 0.5) -> Loss:
    """NT-Xent (Chen et al. 2020, SimCLR, equation 1), by lightly.

    Args:
        temperature: Divides the cosine similarities; above 0.

    Returns:
        A loss over two batches of at least 2 projections, computed in float32. A batch of one has
        no negatives and a loss of exactly 0, whatever the network does: it raises ValueError.

    Raises:
        ValueError: The temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"the temperature of NT-Xent must be above 0, not {temperature}")
    criterion = NTXentLoss(temperature=temperature)

    def loss(first: Tensor, second: Tensor) -> Tensor:
        if len(first) < 2:
            raise ValueError(f"NT-Xent needs at least 2 images in a batch, not {len(first)}")
        with torch.autocast(first.device.type, enabled=False):
            return criterion(first.float(), second.float())

    return loss
