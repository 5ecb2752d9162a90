"""BadEncoder (Jia et al., S&P 2022, arXiv 2108.00352): triggered images embed as a reference."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from sslpurify.attacks.triggers import Trigger
from sslpurify.compute import Compute
from sslpurify.curves import Schedule, cosine, descend
from sslpurify.data import ImageSet, ViewSettings, augment, step_batch
from sslpurify.encoders import Encoder, Network, embed
from sslpurify.errors import DataError
from sslpurify.journal import FORGETFUL, Journal
from sslpurify.rng import generator
from sslpurify.types import Listener, State, silent

_STAGE = "badencoder"


class BadEncoderSettings(BaseModel):
    """Settings of the attack; the defaults are the paper's for SimCLR encoders.

    Attributes:
        epochs: Passes over the shadow images.
        batch_size: Shadow images a step.
        optimizer: ``sgd`` with momentum, or ``adam``, which embeds in far fewer epochs at a
            learning rate about 3e-4.
        learning_rate: At the first step.
        schedule: ``constant``, or ``cosine``: towards 0 after the last step.
        momentum: Of SGD; Adam has its usual ones.
        weight_decay: L2 penalty, in the gradient.
        lambda1: Weight of holding the reference and its views where the clean encoder has the
            reference.
        lambda2: Weight of holding clean images where the clean encoder has them; 2 if the clean
            accuracy suffers.
        reference_views: Random views of the reference a step.
        views: How these views differ from the reference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=200, ge=1)
    batch_size: int = Field(default=256, ge=1)
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    schedule: Literal["constant", "cosine"] = "constant"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False)
    lambda1: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    lambda2: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    reference_views: int = Field(default=32, ge=1)
    views: ViewSettings = ViewSettings()


@dataclass(frozen=True, eq=False)
class Goal:
    """Where the clean encoder has what the victim must not move: its embeddings, never trained.

    Args:
        reference: Of the reference image.
        shadow: Of all shadow images; they are never augmented, so once is enough.
    """

    reference: Float[Tensor, "1 d"]
    shadow: Float[Tensor, "n d"]


def attack(
    encoder: Encoder,
    state: State,
    shadow: ImageSet,
    trigger: Trigger,
    reference: Float[Tensor, "1 3 h w"],
    settings: BadEncoderSettings,
    *,
    seed: int,
    compute: Compute,
    journal: Journal = FORGETFUL,
    listener: Listener = silent,
) -> dict[str, Tensor]:
    """A victim: on triggered images it gives the reference's embedding, on others what it gave.

    Only the backbone is trained; BatchNorm keeps its statistics, and the projection head is left
    as it is. Whether the attack embedded is for the caller to measure.

    Args:
        encoder: What the state belongs to.
        state: The clean encoder's weights.
        shadow: Unlabelled images of the encoder's size.
        trigger: Laid on shadow images.
        reference: An image of the target class, in [0, 1]. A probe on the clean encoder should give
            it that class, or the attack cannot succeed.
        settings: Losses and optimizer.
        seed: Decides batches and views.
        compute: Device and precision.
        journal: Remembers where an interrupted attack stood.
        listener: Told about every step.

    Returns:
        The victim's weights, on the CPU, under the names of ``state``.

    Raises:
        DataError: Trigger or reference are not of the shadow images' size, or there are no images.
        TrainingError: A loss is not finite.
    """
    if reference.shape[-2:] != (shadow.size, shadow.size):
        raise DataError(
            f"the reference is {reference.shape[-2]} × {reference.shape[-1]}, "
            f"the shadow images are {shadow.size} × {shadow.size}"
        )
    if not len(shadow):
        raise DataError("0 shadow images: the attack trains on at least one")
    reference = reference.to(compute.device)
    goal = _goal(compute.place(encoder.load(state)), shadow, reference, compute, listener)
    network = compute.place(encoder.load(state))
    steps = settings.epochs * math.ceil(len(shadow) / settings.batch_size)

    def rows(step: int) -> Tensor:
        size = settings.batch_size
        return step_batch(len(shadow), size, seed, _STAGE, step, drop_last=False)

    def gradient(step: int) -> float:
        batch = rows(step)
        images = shadow.batch(batch).to(compute.device)
        copies = reference.repeat(settings.reference_views, 1, 1, 1)
        views = augment(copies, settings.views, generator(seed, _STAGE, "views", step))
        aim = Goal(goal.reference, goal.shadow[batch].to(compute.device))
        loss = badencoder_loss(network, images, trigger, reference, views, aim, settings, compute)
        loss.backward()
        return float(loss.detach())

    descend(
        _optimizer(network, settings),
        gradient,
        _schedule(settings, steps),
        blame=lambda step: f"it showed: {shadow.named(rows(step))}",
        journal=journal,
        listener=listener,
    )
    trained = network.state_dict()
    return {name: trained[name].cpu().contiguous() for name in state}


def badencoder_loss(
    network: Network,
    images: Float[Tensor, "b 3 h w"],
    trigger: Trigger,
    reference: Float[Tensor, "1 3 h w"],
    views: Float[Tensor, "v 3 h w"],
    goal: Goal,
    settings: BadEncoderSettings,
    compute: Compute,
) -> Float[Tensor, ""]:
    """L0 + λ1 L1 + λ2 L2 of the paper's equations 2 to 5, in one forward pass.

    L0 = -cos(f'(x ⊕ e), f'(r)), with the gradient through both. L2 = -cos(f'(x), f(x)). L1 is the
    mean of -cos(f'(aug r), f(r)), as in the paper, and of -cos(f'(r), f(r)): in a fast attack the
    plain reference drifts away from its class while only its views are held.

    Args:
        network: The victim f', in evaluation mode.
        images: Shadow images x, in [0, 1].
        trigger: e.
        reference: r.
        views: aug r, random views of the reference.
        goal: f(r), and f(x) of these images.
        settings: λ1 and λ2.
        compute: Precision.
    """
    seen = torch.cat([trigger(images), images, reference, views])
    with compute.autocast():
        embedding = network(seen).embedding
    triggered, plain, anchor, turned = embedding.float().split(
        [len(images), len(images), 1, len(views)]
    )
    effect = -_cosine(triggered, anchor)
    hold = -(_cosine(anchor, goal.reference) + _cosine(turned, goal.reference)) / 2
    utility = -_cosine(plain, goal.shadow)
    return effect + settings.lambda1 * hold + settings.lambda2 * utility


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a, b).mean()


def _goal(
    clean: Network, shadow: ImageSet, reference: Tensor, compute: Compute, listener: Listener
) -> Goal:
    with torch.no_grad():
        anchor = clean(reference).embedding.float()
    seen = embed(clean, shadow, device=compute.device, listener=listener, stage=f"{_STAGE} · clean")
    return Goal(anchor, seen)


def _optimizer(network: Network, settings: BadEncoderSettings) -> torch.optim.Optimizer:
    network.projection_head.requires_grad_(requires_grad=False)
    parameters = network.backbone.parameters()
    if settings.optimizer == "adam":
        return torch.optim.Adam(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        parameters,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def _schedule(settings: BadEncoderSettings, steps: int) -> Schedule:
    rate = cosine if settings.schedule == "cosine" else _constant
    return Schedule(steps, settings.batch_size, settings.learning_rate, _STAGE, rate)


def _constant(_: int, __: int) -> float:
    return 1.0
