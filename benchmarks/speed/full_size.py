"""Purifying a full-size CLIP: time and peak memory of every stage, against a plain training step.

    python benchmarks/speed/full_size.py open_clip/RN50 [--batch 16] [--steps 3] [--json]

Random weights, noise images of the architecture's size, random captions; defaults but for the
numbers of images and steps, which are small. The plain step is one of CLIP's image tower against
the frozen text tower with Adam on the same batch, in the same process. Times of stages are divided
by its median; memory is the largest resident set of the process within the stage, reset between
stages (Linux only), divided by that of plain training.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

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
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM"):
            found = int(line.split()[1]) / 1024
    Path("/proc/self/clear_refs").write_text("5", "utf-8")
    return found


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
    optimizer = torch.optim.Adam(network.parameters(), 1e-5)
    objective, seconds = clean.objective("plain"), []
    peak()
    for step in range(steps):
        began = time.perf_counter()
        backward(network, objective(step), PLAIN)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    return median(seconds), peak()


def watched() -> tuple[dict[str, list[float]], Callable[[Step], None]]:
    """What each stage took: seconds, peak in MiB and steps; and who measures it."""
    stages: dict[str, list[float]] = {}
    last = [time.perf_counter()]

    def listener(step: Step) -> None:
        now, seen = time.perf_counter(), peak()
        stage = stages.setdefault(step.stage, [0.0, 0.0, 0])
        stage[0] += now - last[0]
        stage[1] = max(stage[1], seen)
        stage[2] += 1
        last[0] = now

    return stages, listener


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
    )
    stages, listener = watched()
    state = encoder.fresh(0).weights()
    began = time.perf_counter()
    purify(encoder, state, clean.images, settings, text=captions, listener=listener)
    result = {
        "arch": asked.arch,
        "batch": asked.batch,
        "steps": asked.steps,
        "threads": torch.get_num_threads(),
        "plain": {"seconds": round(seconds, 3), "peak_mib": round(memory)},
        "total": {"seconds": round(time.perf_counter() - began, 1)},
        "stages": {
            name: {
                "steps": int(count),
                "seconds_per_step_ratio": round(spent / count / seconds, 2),
                "peak_mib": round(most),
                "peak_ratio": round(most / memory, 2),
            }
            for name, (spent, most, count) in stages.items()
        },
    }
    if asked.json:
        print(json.dumps(result))
        return
    print(f"{asked.arch}: a plain step {seconds:.2f} s, {memory:.0f} MiB")
    for name, stage in result["stages"].items():
        print(f"{name}: {stage}")


if __name__ == "__main__":
    main()
