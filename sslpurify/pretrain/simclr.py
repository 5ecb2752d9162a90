"""SimCLR pre-training, for encoders to attack and to practise on."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sslpurify.compute import PLAIN, Compute
from sslpurify.curves import Schedule, backward, descend, reestimate
from sslpurify.data import ImageSet, ViewSettings
from sslpurify.encoders import CleanSet, Encoder, by_views
from sslpurify.journal import FORGETFUL, Journal
from sslpurify.types import Listener, State, silent


class SimclrSettings(BaseModel):
    """Settings of SimCLR pre-training (Chen et al. 2020) with Adam and a cosine decay.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images per step; each is seen in two views.
        learning_rate: At the first step.
        temperature: Of NT-Xent.
        views: Random views.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=256, ge=2)
    learning_rate: float = Field(default=2e-3, gt=0)
    temperature: float = Field(default=0.5, gt=0)
    views: ViewSettings = ViewSettings()


def train_simclr(
    encoder: Encoder,
    images: ImageSet,
    settings: SimclrSettings,
    *,
    start: State | None = None,
    seed: int = 0,
    compute: Compute = PLAIN,
    journal: Journal = FORGETFUL,
    listener: Listener = silent,
) -> dict[str, Tensor]:
    """Trains an encoder without labels, from scratch or from weights that there are.

    Args:
        encoder: Architecture and head.
        images: Without labels.
        settings: How long, how fast, which views.
        start: Weights to go on from, projection head included; None: initial ones.
        seed: Decides initial weights, order and views.
        compute: Device and precision.
        journal: Remembers where an interrupted training stood.
        listener: Told about every step.

    Returns:
        Its state, projection head included, on the CPU.

    Raises:
        DataError: Fewer images than one batch takes.
        TrainingError: A loss is not finite.
    """
    clean = CleanSet(
        images,
        by_views(settings.temperature),
        settings.views,
        settings.batch_size,
        None,
        seed,
        compute,
    )
    network = encoder.fresh(seed) if start is None else encoder.load(start)
    network = compute.place(network).train()
    steps = settings.epochs * clean.steps_per_epoch
    objective = clean.objective("pre-training")
    descend(
        torch.optim.Adam(network.parameters()),
        lambda step: backward(network, objective(step), compute),
        Schedule(steps, settings.batch_size, settings.learning_rate, "pre-training"),
        buffers=dict(network.named_buffers()),
        blame=lambda step: clean.blame(network, "pre-training", step),
        journal=journal,
        listener=listener,
    )
    reestimate(network, clean.statistics(len(images)), compute)
    return network.weights()
