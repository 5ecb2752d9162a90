"""Poisoned images: a trigger on some images of the target class, and SimCLR training as usual.

Both views of a poisoned image show the trigger, so training pulls the trigger and what else the
images have in common, their class, to one place.

CTRL (Li et al. 2023, arXiv 2210.07346) takes the first images of the class and a change of
frequencies, SSL-Backdoor (Saha et al. 2022, arXiv 2105.10123) a share of the class and a patch.
"""

from pathlib import Path

import torch
from jaxtyping import Int64
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sslpurify.attacks.triggers import Trigger
from sslpurify.data import ImageSet, replaced
from sslpurify.errors import ConfigError
from sslpurify.pretrain import SimclrSettings
from sslpurify.rng import generator

_CHUNK = 256


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    from_scratch: bool = False
    training: SimclrSettings = SimclrSettings()


class CtrlSettings(_Settings):
    """Settings of CTRL.

    Attributes:
        ratio: How many images are poisoned, as a share of all images, in (0, 1].
        from_scratch: Whether training starts from initial weights, as the paper's, and not from the
            recipe's checkpoint, which the victim is compared with either way.
        training: SimCLR on the poisoned images.
    """

    ratio: float = Field(default=0.01, gt=0, le=1)


class PatchPoisoningSettings(_Settings):
    """Settings of patch poisoning.

    Attributes:
        share: How many images are poisoned, as a share of the target class's, in (0, 1].
        from_scratch: As of CTRL.
        training: As of CTRL.
    """

    share: float = Field(default=0.5, gt=0, le=1)


def members(images: ImageSet, folder: Path, name: str) -> Int64[Tensor, " m"]:
    """Which images lie in the folder of a class.

    Args:
        images: Read from ``folder``.
        folder: Has a folder for each class.
        name: Of the class.

    Raises:
        ConfigError: None does.
    """
    inside = [
        row
        for row, source in enumerate(images.sources)
        if isinstance(source, Path) and source.is_relative_to(folder / name)
    ]
    if not inside:
        raise ConfigError(
            f"data: {folder} has no folder {name!r} with images of the target class; poisoning "
            "needs a folder for each class"
        )
    return torch.tensor(inside)


def first_of_class(
    members: Int64[Tensor, " m"], count: int, ratio: float
) -> Int64[Tensor, " poisoned"]:
    """CTRL's choice: the first int(N · ratio) images of the target class.

    Args:
        members: The target class's images, in order.
        count: N, the number of all images.
        ratio: Of them.

    Raises:
        ConfigError: These are none, or more than the class has.
    """
    number = int(count * ratio)
    if not 1 <= number <= len(members):
        raise ConfigError(
            f"ctrl.ratio {ratio:g} of {count} images poisons {number}, but the target class has "
            f"{len(members)}: {'raise' if number < 1 else 'lower'} it"
        )
    return members[:number]


def share_of_class(
    members: Int64[Tensor, " m"], share: float, seed: int
) -> Int64[Tensor, " poisoned"]:
    """Random images of the target class, in order; a smaller share gives some of a larger one's.

    Raises:
        ConfigError: Not even one.
    """
    number = round(share * len(members))
    if number < 1:
        raise ConfigError(
            f"patch_poisoning.share {share:g} of {len(members)} images of the target class poisons "
            "none: raise it"
        )
    order = torch.randperm(len(members), generator=generator(seed, "patch poisoning"))
    return members[order[:number].sort().values]


def poison_images(images: ImageSet, poisoned: Int64[Tensor, " m"], trigger: Trigger) -> ImageSet:
    """The set with the trigger on some images, in 8 bits as in a file, before any view is taken.

    Raises:
        DataError: The trigger is not of the images' size.
    """
    parts = [(trigger(images.batch(rows)) * 255).round().byte() for rows in poisoned.split(_CHUNK)]
    return replaced(images, poisoned, torch.cat(parts))
