"""One training step of a curve against one plain NT-Xent step, in time and in peak memory.

    python benchmarks/speed/curve_step.py [--steps 5] [--images 256] [--json]

All ways train simclr/resnet18 on the same two views of 256 images of 32x32 (512 in one forward
pass) in float32 with Adam:

- plain: the network's own weights, as in SimCLR's training;
- curve: `sslpurify.curves.fit_bend`, which writes the point into an ordinary network;
- functional: automatic differentiation through the Bezier curve by `torch.func.functional_call`,
  the way that was not taken (docs/decisions/0002-curve-steps.md).

They take turns in one process. A ratio is the median over turns of a way's time by plain's time in
the same turn, so that a machine that others use too slows both sides. CPU time is that of all
threads together. Peak memory is that of a process of its own with the same imports, after 3 steps.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor
from torch.func import functional_call

from sslpurify.compute import PLAIN
from sslpurify.curves import Batch, BezierCurve, Schedule, backward, fit_bend, midpoint_bend
from sslpurify.encoders import Output, create
from sslpurify.losses import nt_xent
from sslpurify.rng import generator
from sslpurify.symmetry import Permutation
from sslpurify.types import State, Step

WAYS = ("plain", "curve", "functional")
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 1e-6
MEMORY_STEPS = 3
ENCODER = create("simclr/resnet18", image_size=32)


@dataclass(frozen=True)
class Task:
    """What all ways have in common: two ends of a curve, and one batch of views."""

    start: State
    end: State
    views: Tensor

    def objective(self, _: int) -> Batch:
        """The same at every step."""
        return Batch([lambda: self.views], contrast)


def contrast(output: Output) -> Tensor:
    """NT-Xent of the two views."""
    return nt_xent()(*output.projection.chunk(2))


def make(images: int) -> Task:
    """Random weights, the same with all units exchanged, and noise."""
    start = ENCODER.fresh(0).weights()
    moved = Permutation.random(ENCODER.spec, generator(0, "permutation")).apply(start)
    return Task(start, moved, torch.rand(2 * images, 3, 32, 32, generator=generator(0, "views")))


def plain(task: Task) -> Callable[[], None]:
    """A step on a network's own weights."""
    network = PLAIN.place(ENCODER.load(task.start)).train()
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)

    def step() -> None:
        backward(network, task.objective(0), PLAIN)
        optimizer.step()
        optimizer.zero_grad()

    return step


def functional(task: Task) -> Callable[[], None]:
    """A step on the bend, with the curve as a part of the automatic differentiation."""
    network = PLAIN.place(ENCODER.load(task.start)).train()
    like = {name: parameter.detach() for name, parameter in network.named_parameters()}
    start, end = (
        {name: torch.empty_like(tensor).copy_(state[name]) for name, tensor in like.items()}
        for state in (task.start, task.end)
    )
    bend = {name: tensor.requires_grad_() for name, tensor in midpoint_bend(start, end).items()}
    curve = BezierCurve(start, bend, end)
    optimizer = torch.optim.Adam(bend.values(), LEARNING_RATE)
    draws = generator(0, "t")

    def step() -> None:
        point = curve.at(float(torch.rand((), generator=draws)))
        loss = contrast(functional_call(network, point, (task.views,)))
        decay = sum(tensor.square().sum() for tensor in point.values())
        (loss + WEIGHT_DECAY / 2 * decay).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def fit(task: Task, steps: int, listener: Callable[[Step], None]) -> None:
    """The package's own way."""
    fit_bend(
        PLAIN.place(ENCODER.load(task.start)).train(),
        task.start,
        task.end,
        task.objective,
        Schedule(steps, len(task.views) // 2, LEARNING_RATE, "curve"),
        seed=0,
        weight_decay=WEIGHT_DECAY,
        listener=listener,
    )


Times = dict[str, list[tuple[float, float]]]
"""For every way, wall-clock and CPU seconds of its steps."""


def clock() -> tuple[float, float]:
    """Wall-clock and CPU time."""
    return time.perf_counter(), time.process_time()


def take_turns(images: int, steps: int) -> Times:
    """Time the ways step by step: each of fit_bend's own steps, then one of the others."""
    task = make(images)
    others = {"plain": plain(task), "functional": functional(task)}
    times: Times = {way: [] for way in WAYS}
    began = clock()

    def note(way: str) -> None:
        nonlocal began
        (wall, cpu), (wall_began, cpu_began) = clock(), began
        times[way].append((wall - wall_began, cpu - cpu_began))
        began = clock()

    def after_a_step_of_the_curve(_: Step) -> None:
        note("curve")
        for way, step in others.items():
            step()
            note(way)

    fit(task, steps + 1, after_a_step_of_the_curve)
    return {way: seen[1:] for way, seen in times.items()}  # the first pays for memory and code


def peak(way: str, images: int) -> float:
    """Peak memory in MiB of a process that takes a few steps one way."""
    command = [sys.executable, __file__, "--only", way, "--images", str(images)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def take_steps(way: str, images: int) -> None:
    """What such a process does."""
    task = make(images)
    if way == "curve":
        fit(task, MEMORY_STEPS, lambda _: None)
    else:
        step = plain(task) if way == "plain" else functional(task)
        for _ in range(MEMORY_STEPS):
            step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=5, help="turns that are timed")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        take_steps(options.only, options.images)
        return

    # Memory first: Linux counts what the parent held when it started a process.
    peaks = {way: peak(way, options.images) for way in WAYS}
    times = take_turns(options.images, options.steps)
    found, threads = ratios(times, peaks), torch.get_num_threads()
    seconds = {way: median(wall for wall, _ in times[way]) for way in WAYS}
    if options.json:
        setting = {"images": options.images, "steps": options.steps, "threads": threads}
        print(json.dumps({**found, "seconds": seconds, "peak_mib": peaks, **setting}))
        return
    print(f"simclr/resnet18, {options.images} images of 32x32 in two views, {options.steps} turns,")
    print(f"threads: {threads}\n{'':12}{'a step':>9}{'wall':>8}{'CPU':>8}{'peak':>12}")
    for way in WAYS:
        start = "" if way == "curve" else f"{way}_"
        wall, cpu = (found.get(f"{start}{kind}", 1.0) for kind in ("ratio", "cpu_ratio"))
        print(f"{way:12}{seconds[way]:7.2f} s{wall:7.2f}x{cpu:7.2f}x{peaks[way]:8.0f} MiB")


def ratios(times: Times, peaks: dict[str, float]) -> dict[str, float]:
    """Time and memory by plain's: fit_bend's without a prefix, the functional way's with one."""
    result: dict[str, float] = {}
    for way, prefix in (("curve", ""), ("functional", "functional_")):
        for kind, name in enumerate(("ratio", "cpu_ratio")):
            turns = zip(times[way], times["plain"], strict=True)
            result[prefix + name] = median(mine[kind] / plain[kind] for mine, plain in turns)
        result[f"{prefix}memory_ratio"] = peaks[way] / peaks["plain"]
    return result


if __name__ == "__main__":
    main()
