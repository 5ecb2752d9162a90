"""What all stages of a purification share: the encoder, the clean images, and how to use them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslpurify.compute import Compute
from sslpurify.curves import Schedule, backward, descend, reestimate
from sslpurify.data import ImageSet, ViewSettings
from sslpurify.encoders import CleanSet, Encoder, Network, embed
from sslpurify.journal import Journal
from sslpurify.purify.settings import KINDS, TscSettings
from sslpurify.purify.stage import Trained
from sslpurify.symmetry import PermutationSpec
from sslpurify.types import Listener, State, Step


@dataclass(frozen=True, eq=False)
class Workshop:
    """The encoder and the clean images at hand.

    Args:
        encoder: What the states are states of.
        clean: The clean images and the label-free loss on them.
        settings: The method's.
        compute: Device and precision.
        journal: Remembers what an earlier process did.
        listener: Told about every step.
    """

    encoder: Encoder
    clean: CleanSet
    settings: TscSettings
    compute: Compute
    journal: Journal
    listener: Listener

    def seeing(self, views: ViewSettings) -> "Workshop":
        """The same with other views of the clean images."""
        return replace(self, clean=replace(self.clean, views=views))

    def once(self, name: str, work: Callable[[], Trained]) -> Trained:
        """What a stage, or a round of stages, leaves: done now or remembered."""
        return Trained.from_piece(self.journal.once(name, lambda: work().to_piece()))

    def load(self, state: State) -> Network:
        """A network with a copy of these weights, placed, in evaluation mode."""
        return self.compute.place(self.encoder.load(state))

    def kept(self, network: nn.Module) -> list[nn.Module]:
        """The shallow modules of a network that stay as they came."""
        names = set(kept_names(self.encoder, self.settings))
        return [module for name, module in network.named_modules() if name in names]

    def trainable(self, state: State) -> Network:
        """A network that is trained: all but the kept sections and the projection head.

        The head, fitted to clean images, is the ruler that holds the embeddings in place: a head
        that is trained as well takes over what the backbone then forgets.
        """
        network = self.load(state).train()
        for module in self.kept(network):
            module.requires_grad_(requires_grad=False).eval()
        for name in kept_names(self.encoder, self.settings):
            if name in network.state_dict():
                network.get_parameter(name).requires_grad = False
        network.projection_head.requires_grad_(requires_grad=False)
        return network

    def schedule(self, stage: str, steps: int, learning_rate: float) -> Schedule:
        """A schedule on the settings' batches."""
        return Schedule(steps, self.settings.batch_size, learning_rate, stage)

    def minimize(self, network: Network, schedule: Schedule) -> tuple[float, float]:
        """Trains what a network has to train with the label-free loss, in the modes it is in."""
        objective = self.clean.objective(schedule.stage)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        return descend(
            torch.optim.Adam(trained),
            lambda step: backward(network, objective(step), self.compute),
            schedule,
            buffers=dict(network.named_buffers()),
            blame=lambda step: self.clean.blame(network, schedule.stage, step),
            journal=self.journal,
            listener=self.listener,
        )

    def settle(self, network: Network, name: str) -> None:
        """Measures a network's BatchNorm statistics anew, those of the kept sections excepted."""
        reestimate(network, self._statistics(name), self.compute, kept=self.kept(network))

    def _statistics(self, name: str) -> Iterator[Tensor]:
        """Views of clean images, each a sign of life."""
        for batch in self.clean.statistics(self.settings.statistics_images):
            yield batch
            self.listener(Step(f"{name} · BatchNorm", 0, 0, 0))

    def measure(self, network: Network) -> tuple[float, Float[Tensor, "n d"]]:
        """Label-free loss on clean images, and their embeddings."""
        count = self.settings.profile_images
        images: ImageSet = self.clean.some(count)
        embeddings = embed(
            network, images, device=self.compute.device, processes=self.compute.processes
        )
        return self.clean.loss(network, count), embeddings


def kept_names(encoder: Encoder, settings: TscSettings) -> tuple[str, ...]:
    """Names of the modules and parameters that the settings keep as they came."""
    shallow = encoder.sections[: int(settings.kept * len(encoder.sections))]
    return tuple(name for section in shallow for name in section)


def permuted_groups(encoder: Encoder, settings: TscSettings) -> PermutationSpec:
    """The permutation groups that the settings name, outside the kept sections."""
    return encoder.spec.select(KINDS[settings.groups]).outside(kept_names(encoder, settings))
