"""The clean images and what a network is held to on them, as a function of the step alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from sslpurify.curves.descent import Batch, Objective
from sslpurify.data import ImageSet, ViewSettings, augment, epoch_batches, subset
from sslpurify.encoders.encoder import Output
from sslpurify.encoders.guides import Guide
from sslpurify.errors import DataError
from sslpurify.rng import generator


@dataclass(frozen=True, eq=False)
class CleanSet:
    """Clean images, the views that are taken of them, and the loss that guides training.

    Args:
        images: Without labels.
        guide: The loss.
        views: How views differ from their image.
        batch_size: Images in a step, at least 2.
        micro_batch: Images that pass through the network at a time; the loss sees the whole batch
            all the same. None: the whole batch.
        seed: Decides order and views, as functions of the stage and the step alone.
        device: Where views are made.

    Raises:
        DataError: There are fewer images than one batch takes.
    """

    images: ImageSet
    guide: Guide
    views: ViewSettings
    batch_size: int
    micro_batch: int | None
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
        """What a step of this stage shows and asks: a function of seed, stage and step."""
        return lambda step: self._batch(self._indices(stage, step), stage, step)

    def blame(self, network: nn.Module, stage: str, step: int) -> str:
        """Which images of a step a network makes something that is not finite of, for people.

        Where it is none of them alone, all of the step's images.
        """
        indices = self._indices(stage, step)
        batch = self._batch(indices, stage, step)
        with torch.no_grad():
            fine = torch.cat([_finite(network(part()), self.guide.views) for part in batch.inputs])
        bad, what = indices[~fine], "not finite on"
        if not len(bad):
            bad, what = indices, "it showed"
        return f"{what}: {self.images.named(bad)}"

    def some(self, count: int) -> ImageSet:
        """At most ``count`` of the images, always the same ones for the same seed."""
        return subset(self.images, self._some(count))

    def statistics(self, count: int) -> Iterator[Tensor]:
        """Views of at most ``count`` images: what BatchNorm statistics are measured on.

        Training measures them on views; statistics of plain images cost accuracy for nothing.
        """
        size = min(self.batch_size, self.micro_batch or self.batch_size)
        indices = self._some(count)
        for number, some in enumerate(indices.tensor_split(-(-len(indices) // size))):
            yield self._views(some, ("statistics", number))

    def loss(self, network: nn.Module, count: int) -> float:
        """The loss of a network in evaluation mode, over at most ``count`` images at once."""
        batch = self._batch(self._some(count), "loss", 0)
        with torch.inference_mode():
            parts = [network(images()) for images in batch.inputs]
            return float(
                batch.loss(Output(*(torch.cat(rows) for rows in zip(*parts, strict=True))))
            )

    def _indices(self, stage: str, step: int) -> Tensor:
        number, within = divmod(step, self.steps_per_epoch)
        return _epoch(len(self.images), self.batch_size, self.seed, stage, number)[within]

    def _some(self, count: int) -> Tensor:
        order = torch.randperm(len(self.images), generator=generator(self.seed, "some"))
        return order[:count].sort().values

    def _batch(self, indices: Tensor, stage: str, step: int) -> Batch:
        parts = indices.split(self.micro_batch or len(indices))
        inputs = [
            partial(self._views, part, (stage, "views", step, number))
            for number, part in enumerate(parts)
        ]
        sizes = [self.guide.views * len(part) for part in parts]

        def loss(outputs: Output) -> Tensor:
            by_view = zip(
                *(_by_view(rows, sizes, self.guide.views) for rows in outputs), strict=True
            )
            draws = generator(self.seed, stage, "loss", step)
            return self.guide.loss([Output(*fields) for fields in by_view], indices, draws)

        return Batch(inputs, loss)

    def _views(self, indices: Tensor, stream: tuple[str | int, ...]) -> Tensor:
        images = self.images.batch(indices).to(self.device)
        draws = generator(self.seed, *stream)
        return torch.cat([augment(images, self.views, draws) for _ in range(self.guide.views)])


@lru_cache(maxsize=2)
def _epoch(count: int, size: int, seed: int, stage: str, number: int) -> list[Tensor]:
    return list(epoch_batches(count, size, seed, stage, number))


def _finite(outputs: Output, views: int) -> Tensor:
    """Of which images of a micro-batch every view's outputs are finite."""
    rows = torch.stack([rows.isfinite().flatten(1).all(1) for rows in outputs]).all(0)
    return rows.view(views, -1).all(0).cpu()


def _by_view(rows: Tensor, sizes: list[int], views: int) -> list[Tensor]:
    """Rows that lie by micro-batch and then by view, gathered by view."""
    parts = [part.chunk(views) for part in rows.split(sizes)]
    return [torch.cat(view) for view in zip(*parts, strict=True)]
