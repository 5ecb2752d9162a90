"""Folders of pictures for the tests of this room."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_picture(path: Path, seed: int, size: int = 8) -> np.ndarray:
    """Writes a PNG of noise and returns its pixels, channels first."""
    array = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return array.transpose(2, 0, 1)
