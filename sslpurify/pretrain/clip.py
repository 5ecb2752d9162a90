"""Contrastive language-image training of both towers (Radford et al. 2021, arXiv 2103.00020)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from jaxtyping import Float, Int64
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sslpurify.compute import PLAIN, Compute
from sslpurify.curves import Schedule, cosine, descend, reestimate
from sslpurify.data import CaptionedImages, ViewSettings, augment, step_batch
from sslpurify.encoders import Encoder, Network, TextTower
from sslpurify.encoders.text import Tokenize
from sslpurify.errors import DataError
from sslpurify.journal import FORGETFUL, Journal
from sslpurify.losses import info_nce, siglip
from sslpurify.rng import generator
from sslpurify.types import Listener, silent

Retouch = Callable[[Tensor, Tensor], Tensor]
"""(views in [0, 1], which images of the set they are) -> views; what a poisoner does to some."""

_MOST = math.log(100)  # CLIP's limit of the logit scale


class ClipSettings(BaseModel):
    """Settings of CLIP training with AdamW.

    Attributes:
        epochs: Passes over the pairs.
        batch_size: Pairs a step; each has all others of its batch as negatives.
        learning_rate: After the warm-up; cosine decay towards 0 from there.
        warmup_steps: Steps in which the learning rate rises.
        weight_decay: Of weights with more than one axis.
        beta2: Adam's second decay.
        views: How a view differs from its image; one view an image.
        frozen_batchnorm: Whether BatchNorm keeps the statistics it came with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=256, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    beta2: float = Field(default=0.98, gt=0, lt=1)
    views: ViewSettings = ViewSettings(min_scale=0.6, jitter_probability=0, grey_probability=0)
    frozen_batchnorm: bool = False


def train_clip(
    encoder: Encoder,
    network: Network,
    tower: TextTower,
    pairs: CaptionedImages,
    settings: ClipSettings,
    *,
    seed: int,
    stage: str,
    retouch: Retouch | None = None,
    compute: Compute = PLAIN,
    journal: Journal = FORGETFUL,
    listener: Listener = silent,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Trains both towers, changing the ones given.

    Args:
        encoder: Of which ``network`` is one; it has a text side.
        network: The image tower to train.
        tower: The text tower to train, with its logit scale.
        pairs: Images and their captions.
        settings: Optimizer and views.
        seed: Decides order, views and captions.
        stage: What is running, for people; also names the random streams.
        retouch: Applied to views before they are normalized.
        compute: Device and precision.
        journal: Remembers where an interrupted training stood.
        listener: Told about every step.

    Returns:
        The states of the image tower and of the text tower, on the CPU.

    Raises:
        DataError: Fewer pairs than one batch takes.
        TrainingError: A loss is not finite.
    """
    if encoder.text is None:
        raise ValueError(f"{encoder.name} has no text tower to train")
    count, size = len(pairs), settings.batch_size
    if count < size:
        raise DataError(f"{count} pairs do not fill one batch of {size}: lower batch_size")
    network, tower = compute.place(network), compute.place(tower)
    _modes(network, tower, settings)
    optimizer = _optimizer(network, tower, settings)
    optimizer.register_step_post_hook(partial(_limit, tower))
    lessons = _Lessons(pairs, settings, retouch, seed, stage, compute)
    descend(
        optimizer,
        lessons.gradient(network, tower, _remembered(encoder.text.tokenize)),
        Schedule(
            settings.epochs * (count // size),
            size,
            settings.learning_rate,
            stage,
            lambda step, steps: (
                min(1.0, (step + 1) / (settings.warmup_steps + 1)) * cosine(step, steps)
            ),
        ),
        buffers=dict(network.named_buffers()),
        blame=lambda step: f"it showed: {pairs.images.named(lessons.shown(step))}",
        journal=journal,
        listener=listener,
    )
    if not settings.frozen_batchnorm:
        reestimate(network, lessons.statistics(), compute)
    text = {name: t.detach().cpu().clone() for name, t in tower.state_dict().items()}
    return network.weights(), text


@dataclass(frozen=True, eq=False)
class _Lessons:
    """What a step shows: a function of its number."""

    pairs: CaptionedImages
    settings: ClipSettings
    retouch: Retouch | None
    seed: int
    stage: str
    compute: Compute

    def shown(self, step: int) -> Int64[Tensor, " b"]:
        size = self.settings.batch_size
        return step_batch(len(self.pairs), size, self.seed, self.stage, step)

    def gradient(
        self, network: Network, tower: TextTower, tokenize: Tokenize
    ) -> Callable[[int], float]:
        """The gradient of a step, in both towers."""

        def gradient(step: int) -> float:
            batch = self.shown(step)
            draws = generator(self.seed, self.stage, "views", step)
            views = self._views(batch, draws)
            said = self.pairs.said(batch, torch.rand(len(batch), generator=draws))
            tokens = tokenize(said).to(self.compute.device)
            with self.compute.autocast():
                loss = _loss(network(views).embedding, tower(tokens), tower)
            loss.backward()
            return float(loss.detach())

        return gradient

    def statistics(self) -> Iterator[Tensor]:
        """Views that BatchNorm statistics are measured on."""
        order = torch.randperm(len(self.pairs), generator=generator(self.seed, "statistics"))
        for number, some in enumerate(order[:5000].split(self.settings.batch_size)):
            if len(some) == 1:  # a batch of one has no variance where layers see single pixels
                return
            yield self._views(some, generator(self.seed, "statistics", number))

    def _views(self, batch: Int64[Tensor, " b"], draws: torch.Generator) -> Tensor:
        images = self.pairs.images.batch(batch).to(self.compute.device)
        views = augment(images, self.settings.views, draws)
        return views if self.retouch is None else self.retouch(views, batch)


def _modes(network: Network, tower: TextTower, settings: ClipSettings) -> None:
    network.train()
    tower.train().requires_grad_(requires_grad=True)
    if settings.frozen_batchnorm:
        for module in network.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
                module.eval()


def _remembered(tokenize: Tokenize) -> Tokenize:
    """A tokenizer that keeps its last results: captions from templates come again and again."""

    @lru_cache(maxsize=2**16)
    def one(caption: str) -> Tensor:
        return tokenize([caption])[0]

    return lambda captions: torch.stack([one(caption) for caption in captions])


def _loss(
    images: Float[Tensor, "b d"], captions: Float[Tensor, "b d"], tower: TextTower
) -> Float[Tensor, ""]:
    scale = tower.logit_scale.exp()
    if tower.logit_bias is None:
        return info_nce(images, captions, scale)
    return siglip(images, captions, scale, tower.logit_bias)


def _optimizer(network: Network, tower: TextTower, settings: ClipSettings) -> torch.optim.Optimizer:
    trained = [p for p in (*network.backbone.parameters(), *tower.parameters()) if p.requires_grad]
    return torch.optim.AdamW(
        [
            {
                "params": [p for p in trained if p.ndim > 1],
                "weight_decay": settings.weight_decay,
            },
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(0.9, settings.beta2),
    )


@torch.no_grad()
def _limit(tower: TextTower, *_: object) -> None:
    tower.logit_scale.clamp_(0, _MOST)
