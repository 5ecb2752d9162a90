"""SimCLR's own label-free objective on an image set: NT-Xent on two views of every image."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from sslpurify.curves.descent import Objective
from sslpurify.data import ImageSet, ViewSettings, epoch_batches, subset, two_views
from sslpurify.errors import DataError
from sslpurify.losses import nt_xent
from sslpurify.rng import generator


@dataclass(frozen=True, eq=False)
class Contrast:
    """What two views are drawn from, and how they are compared.

    Args:
        images: Without labels.
        views: How views differ from their image.
        batch_size: Images in a step, at least 2.
        temperature: Of NT-Xent.
        seed: Decides order and views, as functions of the stage and the step alone.
        device: Where views are made.

    Raises:
        DataError: There are fewer images than one batch takes.
    """

    images: ImageSet
    views: ViewSettings
    batch_size: int
    temperature: float
    seed: int
    device: torch.device

    def __post_init__(self) -> None:
        if len(self.images) < self.batch_size:
            raise DataError(
                f"{len(self.images)} clean images are too few: a batch takes {self.batch_size}; "
                "give more images, or lower batch_size"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the images."""
        return len(self.images) // self.batch_size

    def objective(self, stage: str) -> Objective:
        """The loss of a network at a step of this stage: a function of seed, stage and step."""
        loss = nt_xent(self.temperature)

        @lru_cache(maxsize=1)
        def epoch(number: int) -> list[Tensor]:
            count = len(self.images)
            return list(epoch_batches(count, self.batch_size, self.seed, stage, number))

        def objective(network: nn.Module, step: int) -> Tensor:
            batch = epoch(step // self.steps_per_epoch)[step % self.steps_per_epoch]
            images = self.images.batch(batch).to(self.device)
            draws = generator(self.seed, stage, "views", step)
            views = torch.cat(two_views(images, self.views, draws))
            first, second = network(views).projection.chunk(2)
            return loss(first, second)

        return objective

    def some(self, count: int) -> ImageSet:
        """At most ``count`` of the images, always the same ones for the same seed."""
        order = torch.randperm(len(self.images), generator=generator(self.seed, "some"))
        return subset(self.images, order[:count].sort().values)

    def statistics(self, count: int) -> Iterator[Tensor]:
        """Two views of at most ``count`` images: what BatchNorm statistics are measured on.

        Training measures them on views; statistics of plain images cost accuracy for nothing.
        """
        images = self.some(count)
        draws = generator(self.seed, "statistics")
        for indices in torch.arange(len(images)).tensor_split(-(-len(images) // self.batch_size)):
            batch = images.batch(indices).to(self.device)
            yield torch.cat(two_views(batch, self.views, draws))

    def loss(self, network: nn.Module, count: int) -> float:
        """The loss of a network in evaluation mode, on one batch of at most ``count`` images."""
        images = self.some(count)
        batch = images.batch(torch.arange(len(images))).to(self.device)
        first, second = two_views(batch, self.views, generator(self.seed, "loss"))
        with torch.inference_mode():
            value = nt_xent(self.temperature)(network(first).projection, network(second).projection)
        return float(value)
