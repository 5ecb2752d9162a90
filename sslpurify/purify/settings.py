"""Every knob of two-stage symmetry connectivity in one frozen model, and each family's defaults."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sslpurify.compute import Precision
from sslpurify.curves import Endpoints
from sslpurify.data import ViewSettings
from sslpurify.encoders import Family
from sslpurify.symmetry.spec import Kind

Groups = Literal["channels", "inner", "all"]
KINDS: Mapping[Groups, tuple[Kind, ...]] = {
    "channels": ("inner",),
    "inner": ("inner", "heads", "qk", "vo"),
    "all": ("inner", "residual", "heads", "qk", "vo"),
}


class TscSettings(BaseModel):
    """Settings of TSC; the defaults are those of SimCLR's ResNets, `resolved` gives a family's own.

    Attributes:
        rounds: Rounds of two stages each (misalign and connect, align and connect).
        groups: ``channels`` permutes channels and neurons within residual blocks, ``inner``
            attention heads and their dimensions as well, ``all`` the residual streams too.
        kept: Share of the encoder's sections, from the image on, whose weights and statistics stay
            as they came, in [0, 1). A backdoor turns a seen trigger into a wrong embedding, and
            that happens late; early features are what a few thousand images cannot teach again.
        steps: Gradient steps per curve.
        batch_size: Images per step.
        micro_batch: Images that pass through the network at a time, in all processes together; the
            loss sees the whole batch all the same, in the memory of this many. None: the whole
            batch.
        learning_rate: Adam's at the first step; cosine decay.
        weight_decay: wd of the term 0.5 · wd · ‖θ(t)‖² in the curve's loss.
        temperature: Of NT-Xent.
        pseudo_captions: For a CLIP and images without captions: how many prompts, those that the
            suspect itself finds nearest to an image, take the place of its captions.
        t_misaligned: Where on the first curve of a round the point is taken, in (0, 1): from the
            suspect at 0 to its misaligned copy at 1, so that 0.5 is farthest from both.
        t_aligned: Where on the second curve, in (0, 1): from the suspect at 0, aligned to the first
            point, to the first point at 1.
        match_images: Images that correlations come from, at most.
        statistics_images: Images that BatchNorm statistics come from, at most; each gives two
            views.
        profile_points: Points along each curve that are looked at, ends included.
        profile_images: Images that the profile is measured on, at most.
        head_steps: Steps in which a missing projection head is fitted to the untouched backbone.
        head_learning_rate: Of those steps.
        finetune_steps: Steps of plain fine-tuning between rounds; 0 for none.
        finetune_learning_rate: Of those steps.
        final_steps: Steps of plain fine-tuning after the last round; 0 for none.
        final_learning_rate: Of those steps.
        final_views: Of those steps; None: as ``views``.
        views: Random views for the loss and for BatchNorm statistics.
        endpoints: Where the two ends of a curve are kept: on the ``device``, or on the ``host`` for
            networks that do not fit the device with both; the same result, in more time.
        precision: Of convolutions and matrix products.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = Field(default=1, ge=1, le=100)
    groups: Groups = "inner"
    kept: float = Field(default=0.25, ge=0, lt=1)
    steps: int = Field(default=180, ge=1)
    batch_size: int = Field(default=256, ge=2)
    micro_batch: int | None = Field(default=None, ge=2)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-6, ge=0)
    temperature: float = Field(default=0.5, gt=0)
    pseudo_captions: int = Field(default=5, ge=1)
    t_misaligned: float = Field(default=0.5, gt=0, lt=1)
    t_aligned: float = Field(default=0.7, gt=0, lt=1)
    match_images: int = Field(default=1000, ge=2)
    statistics_images: int = Field(default=1000, ge=2)
    profile_points: int = Field(default=11, ge=2)
    profile_images: int = Field(default=500, ge=2)
    head_steps: int = Field(default=100, ge=1)
    head_learning_rate: float = Field(default=1e-3, gt=0)
    finetune_steps: int = Field(default=100, ge=0)
    finetune_learning_rate: float = Field(default=5e-5, gt=0)
    final_steps: int = Field(default=0, ge=0)
    final_learning_rate: float = Field(default=5e-4, gt=0)
    final_views: ViewSettings | None = None
    views: ViewSettings = ViewSettings()
    endpoints: Endpoints = "device"
    precision: Precision = "auto"


_CLIP: Mapping[str, Any] = {
    "kept": 0.0,
    "batch_size": 128,
    "steps": 360,
    "t_aligned": 0.5,
    "final_steps": 180,
    "final_views": ViewSettings(min_scale=0.5, jitter_probability=0.0, grey_probability=0.0),
    "views": ViewSettings(min_scale=0.3),
}
_FAMILIES: Mapping[Family, Mapping[str, Any]] = {
    "resnet": {},
    "modified-resnet": {**_CLIP, "learning_rate": 4e-3, "t_misaligned": 0.3},
    "vit": {**_CLIP, "learning_rate": 3e-3},
}
_WITHOUT_CAPTIONS: Mapping[str, Any] = {
    "t_misaligned": 0.5,
    "t_aligned": 0.7,
    "final_steps": 0,
}
"""docs/decisions/0004-clip-defaults.md"""


def resolved(settings: TscSettings, family: Family, *, captions: bool = True) -> TscSettings:
    """The settings with the family's defaults wherever nothing was set explicitly.

    Args:
        settings: Those that were set explicitly.
        family: Of the encoder.
        captions: Whether the clean images have captions; concerns the families of CLIPs alone.
    """
    without = {} if captions or family == "resnet" else _WITHOUT_CAPTIONS
    chosen = {name: getattr(settings, name) for name in settings.model_fields_set}
    return TscSettings(**{**_FAMILIES[family], **without, **chosen})
