"""``demo``: the whole way once, on a poisoned encoder and images that come with the package."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from sslpurify.attacks import read_trigger
from sslpurify.compute import choose
from sslpurify.data import ImageSet, LabelledImages, from_pixels
from sslpurify.errors import DataError
from sslpurify.probes import ProbeSettings
from sslpurify.recipe import DemoRecipe, PurifyRecipe, load
from sslpurify.report import Evaluation, Row, Which, evaluation_table
from sslpurify.run.answer import Answer
from sslpurify.run.evaluation import Bench, class_index, measure, rows_of, see
from sslpurify.run.loading import Weights, completed, encoder_of, read_weights, resolved
from sslpurify.run.output import staged, unused
from sslpurify.run.purification import purify_into
from sslpurify.types import Listener, State

EMBEDDED = Path(__file__).parents[1] / "demo_data"


@dataclass(frozen=True, eq=False)
class DemoImages:
    """The embedded images: clean ones without labels, and a bench to measure on."""

    clean: ImageSet
    bank: LabelledImages
    test: LabelledImages


def demo(
    out: Path | None, *, seed: int, device: str, listener: Listener, embedded: Path = EMBEDDED
) -> Answer:
    """Evaluate the embedded victim, purify it, evaluate it again, and leave what a run leaves.

    Args:
        out: Folder for the results; None: ``runs/demo``, or the next free number after it.
        seed: Seed of every random draw.
        device: As on the command line.
        listener: Told about every step.
        embedded: The folder that comes with the package.
    """
    started, compute = time.monotonic(), choose(device)
    recipe = load(DemoRecipe, embedded / "demo.yaml")
    out = out or unused(Path("runs/demo"))
