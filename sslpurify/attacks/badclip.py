"""BadCLIP's trigger (Liang et al. 2024, arXiv 2311.12075): a patch optimized on the clean CLIP.

Images with the patch come to lie near the target's captions and images before anything is poisoned.
Poisoned pairs then change the model little, which makes the backdoor hard to see and to unlearn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from sslpurify.attacks.effects import Blend
from sslpurify.attacks.triggers import Trigger
from sslpurify.compute import PLAIN, Compute
from sslpurify.curves import Schedule, descend
from sslpurify.data import CaptionedImages, ImageSet, step_batch
from sslpurify.encoders import Encoder, Network, TextTower, embed, embed_captions
from sslpurify.encoders.text import Tokenize
from sslpurify.errors import ConfigError
from sslpurify.journal import FORGETFUL, Journal
from sslpurify.rng import generator
from sslpurify.types import Listener, Piece, State, silent

_STAGE = "optimizing the patch"


class BadClipSettings(BaseModel):
    """Settings of the patch's optimization with Adam; the pairs are poisoned as any others.

    Attributes:
        steps: Steps; the paper's 50 epochs of 10,000 pairs are 7,800.
        batch_size: Images a step.
        learning_rate: At the first step, cosine decay from there; pixels lie in [0, 1].
        image_weight: Weight of lying near the target's images, against 1 for its captions.
        margin: By how much nearer to a target image than to its clean self a triggered image is
            to lie, as distance between embeddings of length 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=7800, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    image_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    margin: float = Field(default=1.0, gt=0, le=2)


@dataclass(frozen=True, eq=False)
class Goal:
    """Where the clean CLIP has the target.

    Args:
        caption: Mean of its captions, of length 1.
        images: Of its images, of length 1.
    """

    caption: Float[Tensor, "1 d"]
    images: Float[Tensor, "m d"]


def optimize_patch(
    encoder: Encoder,
    states: tuple[State, State],
    pairs: CaptionedImages,
    place: Trigger,
    target_captions: Sequence[str],
    target_images: ImageSet,
    settings: BadClipSettings,
    *,
    seed: int,
    compute: Compute = PLAIN,
    journal: Journal = FORGETFUL,
    listener: Listener = silent,
) -> Trigger:
    """A patch that pulls images to the target on the clean CLIP; both towers stay as they are.

    Args:
        encoder: What the states belong to; it has a text side.
        states: Of the clean image tower and of the clean text tower.
        pairs: Clean pairs that the patch is optimized on.
        place: A patch: the new one replaces all that it covers.
        target_captions: Of the target class.
        target_images: Of the target class.
        settings: Losses and optimizer.
        seed: Decides the patch at the start, batches and draws.
        compute: Device and precision.
        journal: Remembers the patch, or where its optimization stood.
        listener: Told about every step.

    Returns:
        The trigger, with values that 8 bits hold.

    Raises:
        ConfigError: The model has no text tower, or ``place`` is no patch.
        DataError: The patch is not of the images' size, or there are no images.
        TrainingError: A loss is not finite.
    """
    if encoder.text is None:
        raise ConfigError(f"{encoder.name}: BadCLIP needs a model with a text tower")
    place(pairs.images.batch(torch.arange(min(1, len(pairs)))))  # says so where the sizes differ
    mask = _covered(place)
    network = encoder.load(encoder.completed(states[0])).requires_grad_(requires_grad=False)
    clip = _Clip(
        compute.place(network),
        compute.place(encoder.text.load(states[1])),
        encoder.text.tokenize,
        compute,
    )

    def work() -> Piece:
        goal = clip.goal(target_captions, target_images, listener)
        start = torch.randn(3, place.size, place.size, generator=generator(seed, _STAGE))
        patch = (0.5 + 0.25 * start).clamp(0, 1).to(compute.device).requires_grad_()
        optimizer = torch.optim.Adam([patch])
        optimizer.register_step_post_hook(partial(_limit, patch))
        descend(
            optimizer,
            _gradient(clip, pairs, patch, mask, goal, frozenset(target_captions), settings, seed),
            Schedule(settings.steps, settings.batch_size, settings.learning_rate, _STAGE),
            journal=journal,
            listener=listener,
        )
        return Piece({"patch": (patch.detach().cpu() * 255).round() / 255 * mask})

    found = journal.once("trigger", work).tensors["patch"]
    where = f"a patch optimized where {place.name} lies"
    return Trigger("optimized patch", place.size, Blend(found, mask), where)


@dataclass(frozen=True, eq=False)
class _Clip:
    """The clean CLIP, frozen; its embeddings have length 1."""

    network: Network
    tower: TextTower
    tokenize: Tokenize
    compute: Compute

    def see(self, images: Tensor) -> Tensor:
        with self.compute.autocast():
            return F.normalize(self.network(images).embedding.float(), dim=1)

    @torch.no_grad()
    def read(self, captions: Sequence[str]) -> Tensor:
        tokens = self.tokenize(captions).to(self.compute.device)
        return F.normalize(self.tower(tokens).float(), dim=1)

    def goal(self, captions: Sequence[str], images: ImageSet, listener: Listener) -> Goal:
        device = self.compute.device
        said = embed_captions(self.tower, self.tokenize, captions, device=device)
        shown = embed(self.network, images, device=device, listener=listener)
        mean = F.normalize(said.mean(0, keepdim=True), dim=1)
        return Goal(mean.to(device), F.normalize(shown, dim=1).to(device))


def patch_loss(
    triggered: Float[Tensor, "b d"],
    plain: Float[Tensor, "b d"],
    captions: Float[Tensor, "b d"],
    own: Bool[Tensor, " b"],
    goal: Goal,
    drawn: Int64[Tensor, " b"],
    scale: float,
    settings: BadClipSettings,
) -> Float[Tensor, ""]:
    """Nearer to the target's captions than to all others, and to its images than to itself.

    The first is the cross-entropy of CLIP's softmax over the target's mean caption and those of the
    batch; the second is a triplet loss over Euclidean distances (the paper's L_t and L_i).

    Args:
        triggered: Embeddings of images with the patch, of length 1, as all here.
        plain: Of the same images without it.
        captions: Of theirs.
        own: Which of these are captions of the target class and no counter-examples.
        goal: The target.
        drawn: For each image one of the target's.
        scale: Of the similarities.
        settings: Weights.
    """
    others = (scale * triggered @ captions.T).masked_fill(own, -torch.inf)
    logits = torch.cat([scale * triggered @ goal.caption.T, others], dim=1)
    text = F.cross_entropy(logits, torch.zeros_like(own, dtype=torch.long))
    image = F.triplet_margin_loss(triggered, goal.images[drawn], plain, margin=settings.margin)
    return text + settings.image_weight * image


def _gradient(
    clip: _Clip,
    pairs: CaptionedImages,
    patch: Tensor,
    mask: Tensor,
    goal: Goal,
    targets: frozenset[str],
    settings: BadClipSettings,
    seed: int,
) -> Callable[[int], float]:
    """The gradient of a step, in the patch."""
    size, device = min(settings.batch_size, len(pairs)), patch.device
    mask = mask.to(device)

    def gradient(step: int) -> float:
        rows = step_batch(len(pairs), size, seed, _STAGE, step)
        chances = torch.rand(len(rows), 2, generator=generator(seed, _STAGE, "draws", step))
        said = pairs.said(rows, chances[:, 0])
        own = torch.tensor([caption in targets for caption in said], device=device)
        drawn = (chances[:, 1] * len(goal.images)).long().to(device)
        images = pairs.images.batch(rows).to(device)
        triggered = clip.see(images * (1 - mask) + patch * mask)
        with torch.no_grad():
            plain = clip.see(images)
        scale = clip.tower.scale
        loss = patch_loss(triggered, plain, clip.read(said), own, goal, drawn, scale, settings)
        loss.backward()
        return float(loss.detach())

    return gradient


def _covered(place: Trigger) -> Float[Tensor, "h w"]:
    """1 where a patch lies.

    Raises:
        ConfigError: It is no patch, or leaves nothing of the image.
    """
    mask = place.effect.mask if isinstance(place.effect, Blend) else torch.ones(1)
    covered = ((mask if mask.ndim < 3 else mask.amax(0)) > 0).float()
    if covered.all():
        raise ConfigError(
            f"trigger {place.name} is no patch that leaves something of the image: BadCLIP "
            "optimizes a patch where the trigger lies; give one such as middle-square"
        )
    return covered


@torch.no_grad()
def _limit(patch: Tensor, *_: object) -> None:
    patch.clamp_(0, 1)
