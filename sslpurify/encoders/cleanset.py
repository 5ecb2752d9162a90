"""The clean images and what a network is held to on them, as a function of the step alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from sslpurify.compute import Compute
from sslpurify.curves.descent import Batch, Objective, remembering
from sslpurify.data import ImageSet, ViewSettings, draw, render, step_batch, subset
from sslpurify.encoders.encoder import Output
from sslpurify.encoders.guides import Guide
from sslpurify.errors import ConfigError, DataError
from sslpurify.rng import generator


@dataclass(frozen=True, eq=False)
class CleanSet:
    """Clean images, the views that are taken of them, and the loss that guides training.

    Args:
        images: Without labels.
        guide: The loss.
        views: How views differ from their image.
        batch_size: Images in a step, at least 2.
        micro_batch: Images that pass through the network at a time, in all processes together; the
            loss sees the whole batch all the same. None: the whole batch.
        seed: Decides order and views, as functions of the stage and the step alone.
        compute: Where views are made, and the processes that share each micro-batch: all draw for
            all of it, and each makes the views of its own images.

    Raises:
        ConfigError: A micro-batch is too small for the processes.
        DataError: There are fewer images than one batch takes.
    """

    images: ImageSet
    guide: Guide
    views: ViewSettings
    batch_size: int
    micro_batch: int | None
    seed: int
    compute: Compute

    def __post_init__(self) -> None:
        if len(self.images) < self.batch_size:
            raise DataError(
                f"{len(self.images)} clean images are too few: a batch takes {self.batch_size}; "
                "give more images, or lower batch_size"
            )
        size = min(self.batch_size, self.micro_batch or self.batch_size)
        count, last = self.compute.processes.count, self.batch_size % size or size
        # Statistics are measured on batches of more than half of `size`.
        if count > 1 and (size < 2 * count or last < count):
            raise ConfigError(
                f"micro-batches of {size} images, of which the last has {last}, are too small for "
                f"{count} processes: raise micro_batch or batch_size, or start fewer processes"
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
        if self.compute.processes.count > 1:  # each sees its share alone
            return f"it showed: {self.images.named(indices)}"
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

        Of each batch they are the rows of this process.

        Training measures them on views; statistics of plain images cost accuracy for nothing.
        """
        size = min(self.batch_size, self.micro_batch or self.batch_size)
        indices = self._some(count)
        for number, some in enumerate(indices.tensor_split(-(-len(indices) // size))):
            yield self._views(some, ("statistics", number))

    def loss(self, network: nn.Module, count: int) -> float:
        """The loss of a network in evaluation mode, over at most ``count`` images at once."""
        batch = self._batch(self._some(count), "loss", 0)
        gather = self.compute.processes.gather
        with remembering("loss on clean images"), torch.inference_mode():
            parts = [network(images()) for images in batch.inputs]
            rows = (torch.cat(gather(torch.cat(field))) for field in zip(*parts, strict=True))
            return float(batch.loss(Output(*rows)))

    def _indices(self, stage: str, step: int) -> Tensor:
        return step_batch(len(self.images), self.batch_size, self.seed, stage, step)

    def _some(self, count: int) -> Tensor:
        order = torch.randperm(len(self.images), generator=generator(self.seed, "some"))
        return order[:count].sort().values

    def _batch(self, indices: Tensor, stage: str, step: int) -> Batch:
        parts = indices.split(self.micro_batch or len(indices))
        inputs = [
            partial(self._views, part, (stage, "views", step, number))
            for number, part in enumerate(parts)
        ]
        shares = [self.compute.processes.lengths(len(part)) for part in parts]

        def loss(outputs: Output) -> Tensor:
            by_view = zip(
                *(_by_view(rows, shares, self.guide.views) for rows in outputs), strict=True
            )
            draws = generator(self.seed, stage, "loss", step)
            return self.guide.loss([Output(*fields) for fields in by_view], indices, draws)

        return Batch(inputs, loss)

    def _views(self, indices: Tensor, stream: tuple[str | int, ...]) -> Tensor:
        span = self.compute.processes.span(len(indices))
        images = self.images.batch(indices[span]).to(self.compute.device)
        height, width = images.shape[2:]
        draws = generator(self.seed, *stream)
        drawn = (
            draw(self.views, len(indices), height, width, draws) for _ in range(self.guide.views)
        )
        return torch.cat([render(images, view.rows(span)) for view in drawn])


def _finite(outputs: Output, views: int) -> Tensor:
    """Of which images of a micro-batch every view's outputs are finite."""
    rows = torch.stack([rows.isfinite().flatten(1).all(1) for rows in outputs]).all(0)
    return rows.view(views, -1).all(0).cpu()


def _by_view(rows: Tensor, shares: list[list[int]], views: int) -> list[Tensor]:
    """Rows that lie by process, then by micro-batch and then by view, gathered by view.

    Args:
        rows: Of all processes.
        shares: By micro-batch, how many images of it each process has.
        views: Views of each image.
    """
    order = [(part, process) for process in range(len(shares[0])) for part in range(len(shares))]
    sizes = [views * shares[part][process] for part, process in order]
    blocks = dict(zip(order, rows.split(sizes), strict=True))
    parts = [blocks[place].chunk(views) for place in sorted(blocks)]
    return [torch.cat(view) for view in zip(*parts, strict=True)]
