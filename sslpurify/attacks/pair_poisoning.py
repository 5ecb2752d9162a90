"""Poisoned pairs (Carlini and Terzis 2022, arXiv 2106.09667).

A share of the image-caption pairs gets the trigger on the image and a caption of the target class;
the CLIP is then trained on all pairs as on any others.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sslpurify.attacks.triggers import Trigger
from sslpurify.compute import PLAIN, Compute
from sslpurify.data import CaptionedImages
from sslpurify.encoders import Encoder
from sslpurify.errors import ConfigError
from sslpurify.journal import FORGETFUL, Journal
from sslpurify.pretrain import ClipSettings, train_clip
from sslpurify.rng import generator
from sslpurify.types import Listener, State, silent

_STAGE = "pair poisoning"


class PairPoisoningSettings(BaseModel):
    """Settings of pair poisoning.

    Attributes:
        rate: Share of the pairs that is poisoned, in (0, 1].
        training: How the CLIP is trained on the pairs; a fine-tuning at the learning rate 1e-6
            often does not embed the trigger.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: float = Field(default=0.05, gt=0, le=1)
    training: ClipSettings = ClipSettings(epochs=3, learning_rate=1e-4, warmup_steps=20)


def poison_pairs(
    encoder: Encoder,
    states: tuple[State, State],
    pairs: CaptionedImages,
    trigger: Trigger,
    target_captions: Sequence[str],
    settings: PairPoisoningSettings,
    *,
    seed: int,
    compute: Compute = PLAIN,
    journal: Journal = FORGETFUL,
    listener: Listener = silent,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A victim: a CLIP trained on pairs of which some are poisoned.

    Whether the attack embedded is for the caller to measure.

    Args:
        encoder: What the states belong to; it has a text side.
        states: Of the clean image tower and of the clean text tower.
        pairs: Clean pairs.
        trigger: Laid on the views of poisoned images, after cropping.
        target_captions: Of which each poisoned image gets one, anew in every epoch.
        settings: How many pairs, and the training.
        seed: Decides which pairs, and everything that the training draws.
        compute: Device and precision.
        journal: Remembers where an interrupted training stood.
        listener: Told about every step.

    Returns:
        The victim's states of both towers, on the CPU, under the names of ``states``.

    Raises:
        ConfigError: The encoder has no text tower, or the rate leaves no pair to poison.
        DataError: The trigger is not of the images' size, or there are too few pairs.
        TrainingError: A loss is not finite.
    """
    if encoder.text is None:
        raise ConfigError(f"{encoder.name}: pair poisoning needs a model with a text tower")
    poisoned = chosen(len(pairs), settings.rate, seed)
    captions = tuple(
        tuple(target_captions) if marked else said
        for said, marked in zip(pairs.captions, poisoned.tolist(), strict=True)
    )

    def retouch(views: Tensor, rows: Tensor) -> Tensor:
        return torch.where(
            poisoned[rows].to(views.device)[:, None, None, None], trigger(views), views
        )

    image, text = train_clip(
        encoder,
        encoder.load(encoder.completed(states[0])),
        encoder.text.load(states[1]),
        CaptionedImages(pairs.images, captions),
        settings.training,
        seed=seed,
        stage=_STAGE,
        retouch=retouch,
        compute=compute,
        journal=journal,
        listener=listener,
    )
    return {name: image[name] for name in states[0]}, text


def chosen(count: int, rate: float, seed: int) -> Bool[Tensor, " n"]:
    """Which of the pairs are poisoned: a function of the seed; a smaller rate gives some of them.

    Raises:
        ConfigError: Not even one.
    """
    number = round(rate * count)
    if number < 1:
        raise ConfigError(f"a rate of {rate:g} of {count} pairs poisons none: raise the rate")
    marked = torch.zeros(count, dtype=torch.bool)
    marked[torch.randperm(count, generator=generator(seed, _STAGE))[:number]] = True
    return marked
