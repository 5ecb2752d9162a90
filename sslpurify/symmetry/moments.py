"""Pearson correlation of many channels over a stream of samples."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sslpurify.processes import Processes
from sslpurify.types import State


class Centred(NamedTuple):
    """A batch of samples without its mean."""

    values: Float[Tensor, "samples channels"]
    mean: Float64[Tensor, " channels"]


def centre(values: Float[Tensor, "samples channels"]) -> Centred:
    """The batch less its mean, in float32 or better."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    mean = values.mean(0)
    return Centred(values - mean, mean.double())


class CoMoments:
    """Exact co-moments of two sets of channels seen on the same samples, batch by batch.

    Batches are merged by the update of Chan, Golub and LeVeque (1983, "Algorithms for computing
    the sample variance"), on deviations from each batch's own mean: nothing cancels, however large
    the means are, and memory does not grow with the number of samples. The products are single
    matrix products in the precision of `centre`; sums are kept in float64.

    Args:
        x: A batch that shows sizes, precision and device; it is not yet counted.
        y: Likewise, of the other set of channels.
    """

    def __init__(self, x: Centred, y: Centred) -> None:
        self._samples = 0
        self._dtype = torch.promote_types(x.values.dtype, y.values.dtype)
        self._cross = x.mean.new_zeros(len(x.mean), len(y.mean))
        self._mean_x, self._square_x = torch.zeros_like(x.mean), torch.zeros_like(x.mean)
        self._mean_y, self._square_y = torch.zeros_like(y.mean), torch.zeros_like(y.mean)

    def sums(self) -> dict[str, Tensor]:
        """All that was counted so far, live; `restored` goes on from it."""
        return {
            "samples": torch.tensor(self._samples),
            "precision": torch.zeros((), dtype=self._dtype),
            "cross": self._cross,
            "mean_x": self._mean_x,
            "mean_y": self._mean_y,
            "square_x": self._square_x,
            "square_y": self._square_y,
        }

    @classmethod
    def restored(cls, sums: State, device: torch.device) -> "CoMoments":
        """Co-moments that stand where `sums` stood."""
        at = {name: tensor.to(device, copy=True) for name, tensor in sums.items()}
        nothing = at["precision"].expand(0, 0)
        moments = cls(Centred(nothing, at["mean_x"]), Centred(nothing, at["mean_y"]))
        moments._samples = int(sums["samples"])
        moments._cross = at["cross"]
        moments._mean_x, moments._square_x = at["mean_x"], at["square_x"]
        moments._mean_y, moments._square_y = at["mean_y"], at["square_y"]
        return moments

    def add(self, x: Centred, y: Centred) -> None:
        """Count a batch; for the correlation of channels with themselves, ``y`` is ``x``."""
        product = x.values.T @ y.values
        squares_x = product.diagonal() if y is x else x.values.square().sum(0)
        squares_y = squares_x if y is x else y.values.square().sum(0)
        self._merge(len(x.values), product, x.mean, squares_x, y.mean, squares_y)

    def merge(self, processes: Processes) -> None:
        """Count what all processes have counted, each of which has counted at least one sample."""
        if processes.count == 1:
            return
        mine = (self._cross, self._mean_x, self._square_x, self._mean_y, self._square_y)
        samples = self._cross.new_tensor([self._samples])
        sizes = [each.numel() for each in (samples, *mine)]
        everyone = processes.gather(
            torch.cat([samples, *(each.reshape(-1) for each in mine)])[None]
        )
        for each in mine:
            each.zero_()
        self._samples = 0
        for seen in everyone:
            count, cross, *others = seen[0].split(sizes)
            self._merge(round(float(count)), cross.view_as(self._cross), *others)

    def _merge(
        self,
        samples: int,
        cross: Tensor,
        mean_x: Tensor,
        square_x: Tensor,
        mean_y: Tensor,
        square_y: Tensor,
    ) -> None:
        total = self._samples + samples
        weight, share = self._samples * samples / total, samples / total
        shift_x, shift_y = mean_x - self._mean_x, mean_y - self._mean_y
        self._cross.add_(cross).addr_(shift_x, shift_y, alpha=weight)
        self._square_x.add_(square_x).addcmul_(shift_x, shift_x, value=weight)
        self._square_y.add_(square_y).addcmul_(shift_y, shift_y, value=weight)
        self._mean_x.add_(shift_x, alpha=share)
        self._mean_y.add_(shift_y, alpha=share)
        self._samples = total

    def finite(self) -> bool:
        """Whether everything counted so far, and its squares, were finite."""
        sums = (self._mean_x, self._mean_y, self._square_x, self._square_y)
        return bool(torch.isfinite(torch.cat(sums)).all())

    def pearson(self) -> Float[Tensor, "x y"]:
        """The correlations, in [-1, 1], in the precision of the products, on the CPU.

        A channel that does not vary beyond the rounding of its own values correlates with nothing:
        0, where the formula gives 0/0.
        """
        spread_x = self._spread(self._mean_x, self._square_x)
        spread_y = self._spread(self._mean_y, self._square_y)
        correlations = self._cross / spread_x[:, None] / spread_y
        return correlations.clamp(-1, 1).to("cpu", self._dtype)

    def _spread(self, mean: Tensor, squares: Tensor) -> Tensor:
        """Root of the summed squares; infinite for a dead channel."""
        rounding = 32 * torch.finfo(self._dtype).eps
        dead = squares <= rounding**2 * (squares + self._samples * mean.square())
        return squares.sqrt().masked_fill(dead, torch.inf)
