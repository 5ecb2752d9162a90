"""What all stages of a purification share: the encoder, the clean images, and how to use them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslpurify.compute import Compute
from sslpurify.curves import Objective, Schedule, backward, descend, reestimate
from sslpurify.data import ImageSet, epoch_batches, subset, two_views
from sslpurify.encoders import Encoder, Network, embed
from sslpurify.errors import DataError
from sslpurify.losses import nt_xent
from sslpurify.purify.settings import TscSettings
from sslpurify.rng import generator
from sslpurify.types import Listener, State


@dataclass(frozen=True)
class Workshop:
    """The encoder and the clean images at hand.

    Args:
        encoder: What the states are states of.
        images: Clean, unlabeled.
        settings: The method's.
        seed: All draws are functions of it and of the stage's name.
        compute: Device and precision.
        listener: Told about every step.
    """

    encoder: Encoder
    images: ImageSet
    settings: TscSettings
    seed: int
    compute: Compute
    listener: Listener

    def __post_init__(self) -> None:
        minimum = self.settings.batch_size
        if len(self.images) < minimum:
            raise DataError(
                f"{len(self.images)} clean images are too few: a batch takes {minimum}; give more "
                "images or a smaller batch_size"
            )

    def load(self, state: State) -> Network:
        """A network with a copy of these weights, placed, in evaluation mode."""
        return self.compute.place(self.encoder.load(state))

    def some(self, count: int) -> ImageSet:
        """At most ``count`` of the clean images, always the same ones."""
        order = torch.randperm(len(self.images), generator=generator(self.seed, "some"))
        return subset(self.images, order[:count].sort().values)

    def schedule(self, stage: str, steps: int, learning_rate: float) -> Schedule:
        """A schedule on the settings' batches."""
        return Schedule(steps, self.settings.batch_size, learning_rate, stage)

    def objective(self, stage: str) -> Objective:
        """NT-Xent on two views of a step's images, a function of seed, stage and step alone."""
        loss = nt_xent(self.settings.temperature)
        batch_size = self.settings.batch_size
        per_epoch = len(self.images) // batch_size

        @lru_cache(maxsize=1)
        def epoch(number: int) -> list[Tensor]:
            return list(epoch_batches(len(self.images), batch_size, self.seed, stage, number))

        def objective(network: nn.Module, step: int) -> Tensor:
            batch = self.images.batch(epoch(step // per_epoch)[step % per_epoch])
            draws = generator(self.seed, stage, "views", step)
            views = two_views(batch.to(self.compute.device), self.settings.views, draws)
            first, second = network(torch.cat(views)).projection.chunk(2)
            return loss(first, second)

        return objective

    def minimize(
        self, network: Network, trained: nn.Module, schedule: Schedule
    ) -> tuple[float, float]:
        """Trains one part of a network with the label-free loss, in the modes it is in."""
        objective = self.objective(schedule.stage)
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        for parameter in trained.parameters():
            parameter.requires_grad_(True)
        return descend(
            trained.parameters(),
            lambda step: backward(network, objective, step, self.compute),
            schedule,
            self.listener,
        )

    def settle(self, network: Network) -> None:
        """Measures a network's BatchNorm statistics on views, where training measures them."""
        reestimate(network, self._views(self.settings.statistics_images), self.compute)

    def measure(self, network: Network) -> tuple[float, Float[Tensor, "n d"]]:
        """Label-free loss on clean images, and their embeddings."""
        images = self.some(self.settings.profile_images)
        loss = nt_xent(self.settings.temperature)
        draws = generator(self.seed, "profile")
        views = two_views(
            images.batch(torch.arange(len(images))), self.settings.views, draws
        )
        with torch.inference_mode(), self.compute.autocast():
            first, second = (network(view.to(self.compute.device)).projection for view in views)
            value = float(loss(first, second))
        return value, embed(network, images, device=self.compute.device)

    def _views(self, count: int) -> Iterator[Tensor]:
        images = self.some(count)
        draws = generator(self.seed, "statistics")
        parts = max(1, len(images) // self.settings.batch_size)
        for indices in torch.arange(len(images)).tensor_split(parts):
            yield torch.cat(two_views(images.batch(indices), self.settings.views, draws))
