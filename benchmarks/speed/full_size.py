"""Purifying a full-size CLIP: time and peak memory of every stage, against a plain training step.

    python benchmarks/speed/full_size.py open_clip/RN50 [--batch 16] [--steps 3] [--json]

Random weights, noise images of the architecture's size, random captions; the family's defaults but
for the numbers of images and steps, which are small. The plain step is one of CLIP's image tower
against the frozen text tower with Adam on the same batch, in the same process. All times are CPU
seconds, which other programs on the machine change least, divided by its: of a whole stage, and of
a step, the median of those after the first. A step of matching is a batch, one of a profile a point
of the curve (BatchNorm statistics, loss, embeddings). The first step of a stage pays for what lies
before it, such as assignment and copies of weights; what no step follows is "the rest". Memory is
the largest resident set of the process within the stage, reset at each step (Linux only), divided
by that of plain training.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from sslpurify.compute import PLAIN
from sslpurify.curves import backward
from sslpurify.data import ViewSettings, from_pixels
from sslpurify.encoders import Captions, CleanSet, Encoder, by_captions, create
from sslpurify.purify import TscSettings, purify
from sslpurify.rng import generator
from sslpurify.types import Step


def peak() -> float:
    """Largest resident set since the last call, in MiB."""
    status = Path("/proc/self/status").read_text("utf-8").splitlines()
    found = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5", "utf-8")
    return found / 1024


def make(encoder: Encoder, images: int, batch: int) -> tuple[CleanSet, Captions]:
    """Noise, and captions that are noise."""
    draws = generator(0, "full size")
    size = encoder.image_size
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8, generator=draws)
    embeddings = torch.nn.functional.normalize(
        torch.randn(images, encoder.embedding_dim, generator=draws), dim=1
    )
    captions = Captions(embeddings, torch.arange(images)[:, None], scale=100.0)
    mild = ViewSettings(min_scale=0.5, jitter_probability=0, grey_probability=0)
    return CleanSet(
        from_pixels(pixels), by_captions(captions), mild, batch, None, 0, PLAIN
    ), captions


def plain(encoder: Encoder, clean: CleanSet, steps: int) -> tuple[float, float]:
    """Seconds of a step of ordinary training, and its peak memory."""
    network = encoder.fresh(0).train()
    peak()
    optimizer = torch.optim.Adam(network.parameters(), 1e-5)
    objective, seconds = clean.objective("plain"), []
    for step in range(steps + 1):
        began = time.process_time()
        backward(network, objective(step), PLAIN)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - began)
    return median(seconds[1:]), peak()


@dataclass
class Stage:
    """What a stage took: the seconds of each step, and its peak memory in MiB."""

    steps: list[float] = field(default_factory=list[float])
    peak: float = 0.0

    @property
    def later(self) -> float:
        """Median of the steps after the first one, or that one where there are no others."""
        return median(self.steps[1:] or self.steps)


def watched() -> tuple[dict[str, Stage], Callable[[Step], None]]:
    """Every stage by its name; and who measures it."""
    stages: dict[str, Stage] = {}
    last = [time.process_time()]
    peak()

    def listener(step: Step) -> None:
        now = time.process_time()
        stage = stages.setdefault(step.stage, Stage())
        stage.steps.append(now - last[0])
        stage.peak = max(stage.peak, peak())
        last[0] = now

    return stages, listener


def table(result: dict[str, Any]) -> str:
    """For people."""
    plain, total = result["plain"], result["total"]
    return "\n".join(
        [
            f"{result['arch']}, {result['batch']} images a step, {result['threads']} threads",
            f"a plain step: {plain['seconds']} CPU s, {plain['peak_mib']} MiB",
            f"purifying: {total['seconds']} CPU s, as long as {total['ratio']} plain steps",
            f"{'':32}{'steps':>6}{'all':>8}{'a step':>8}{'MiB':>8}{'ratio':>8}",
            *(
                f"{name:32}" + "{:6}{:8.2f}{:8.2f}{:8}{:8.2f}".format(*stage.values())
                for name, stage in result["stages"].items()
            ),
        ]
    )


def main() -> None:
    """Prints one line a stage, or one JSON object."""
    parser = argparse.ArgumentParser(description="Purify a full-size CLIP for a few steps.")
    parser.add_argument("arch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    encoder = create(asked.arch, quick_gelu=False)
    clean, captions = make(encoder, 4 * asked.batch, asked.batch)
    seconds, memory = plain(encoder, clean, asked.steps)
    settings = TscSettings(
        steps=asked.steps,
        batch_size=asked.batch,
        match_images=asked.batch,
        statistics_images=2 * asked.batch,
        profile_points=2,
        profile_images=asked.batch,
        final_steps=asked.steps,
    )
    state = encoder.fresh(0).weights()
    began = time.process_time()
    stages, listener = watched()
    purify(encoder, state, clean.images, settings, text=captions, listener=listener)
    listener(Step("the rest", 1, 1, 0))
    total = time.process_time() - began
    result: dict[str, Any] = {
        "arch": asked.arch,
        "batch": asked.batch,
        "steps": asked.steps,
        "threads": torch.get_num_threads(),
        "plain": {"seconds": round(seconds, 3), "peak_mib": round(memory)},
        "total": {"seconds": round(total, 1), "ratio": round(total / seconds, 1)},
        "stages": {
            name: {
                "steps": len(stage.steps),
                "ratio": round(sum(stage.steps) / seconds, 2),
                "ratio_per_step": round(stage.later / seconds, 2),
                "peak_mib": round(stage.peak),
                "peak_ratio": round(stage.peak / memory, 2),
            }
            for name, stage in stages.items()
        },
    }
    print(json.dumps(result) if asked.json else table(result))


if __name__ == "__main__":
    main()
