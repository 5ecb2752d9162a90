"""A real pipeline at the smallest size: a narrow encoder, images that a probe can tell apart."""

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from sslpurify.encoders import Encoder, create

ARCH = "simclr/resnet18-w2-cifar"
SIZE = 16
CLASSES = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}
QUICK = {
    "steps": 1,
    "batch_size": 8,
    "match_images": 16,
    "statistics_images": 16,
    "profile_points": 2,
    "profile_images": 16,
    "head_steps": 1,
    "final_steps": 0,
}
"""Settings of TSC that run through in about a second."""


def encoder() -> Encoder:
    """The encoder that all helpers mean."""
    return create(ARCH, image_size=SIZE)


def state(seed: int = 0) -> dict[str, Tensor]:
    """Weights that tell colours apart by chance, under our own names."""
    return dict(encoder().fresh(seed).state_dict())


def write_checkpoint(path: Path, seed: int = 0, *, head: bool = False) -> Path:
    """A published encoder: backbone alone, as a rule."""
    kept = {
        name if head else name.removeprefix("backbone."): tensor
        for name, tensor in state(seed).items()
        if head or name.startswith("backbone.")
    }
    save_file(kept, path)
    return path


def write_images(folder: Path, count: int, seed: int = 0, size: int = SIZE) -> Path:
    """Images of all classes, without labels."""
    folder.mkdir(parents=True)
    colours = list(CLASSES.values())
    for number in range(count):
        pixels = _noisy(colours[number % len(colours)], size, seed * 10_000 + number)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


def write_classes(folder: Path, per_class: int, seed: int = 0, size: int = SIZE) -> Path:
    """A folder for each class."""
    for place, (name, colour) in enumerate(CLASSES.items()):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = _noisy(colour, size, (seed * 10 + place) * 10_000 + number)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    return folder


def _noisy(colour: tuple[int, int, int], size: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 25, (size, size, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def set_flags(**blocks: dict[str, object]) -> list[str]:
    """``tsc={"steps": 2}`` as the command line's ``--set tsc.steps=2``."""
    return [
        part
        for block, keys in blocks.items()
        for key, value in keys.items()
        for part in ("--set", f"{block}.{key}={value}")
    ]


def trees(folder: Path) -> set[str]:
    """Every file and folder below, to see that nothing was left behind."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
