"""What all stages of a purification share: the encoder, the clean images, and how to use them."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from sslpurify.compute import Compute
from sslpurify.curves import Schedule, backward, descend, reestimate
from sslpurify.data import ImageSet
from sslpurify.encoders import Contrast, Encoder, Network, embed
from sslpurify.purify.settings import TscSettings
from sslpurify.types import Listener, State


@dataclass(frozen=True, eq=False)
class Workshop:
    """The encoder and the clean images at hand.

    Args:
        encoder: What the states are states of.
        contrast: The clean images and the label-free loss on them.
        settings: The method's.
        compute: Device and precision.
        listener: Told about every step.
    """

    encoder: Encoder
    contrast: Contrast
    settings: TscSettings
    compute: Compute
    listener: Listener

    def load(self, state: State) -> Network:
        """A network with a copy of these weights, placed, in evaluation mode."""
        return self.compute.place(self.encoder.load(state))

    def schedule(self, stage: str, steps: int, learning_rate: float) -> Schedule:
        """A schedule on the settings' batches."""
        return Schedule(steps, self.settings.batch_size, learning_rate, stage)

    def minimize(
        self, network: Network, trained: nn.Module, schedule: Schedule
    ) -> tuple[float, float]:
        """Trains one part of a network with the label-free loss, in the modes it is in."""
        objective = self.contrast.objective(schedule.stage)
        network.requires_grad_(requires_grad=False)
        trained.requires_grad_(requires_grad=True)
        return descend(
            trained.parameters(),
            lambda step: backward(network, objective, step, self.compute),
            schedule,
            self.listener,
        )

    def settle(self, network: Network) -> None:
        """Measures a network's BatchNorm statistics anew."""
        count = self.settings.statistics_images
        reestimate(network, self.contrast.statistics(count), self.compute)

    def measure(self, network: Network) -> tuple[float, Float[Tensor, "n d"]]:
        """Label-free loss on clean images, and their embeddings."""
        count = self.settings.profile_images
        images: ImageSet = self.contrast.some(count)
        embeddings = embed(network, images, device=self.compute.device)
        return self.contrast.loss(network, count), embeddings
