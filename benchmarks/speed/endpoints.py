"""Where a curve's two ends lie while it is trained: time of a step and memory, on a CPU.

    python benchmarks/speed/endpoints.py [--arch simclr/resnet50] [--images 16] [--steps 5] [--json]

- resident: private copies in memory, as `fit_bend` has them on a CPU, whatever ``endpoints`` says;
- mapped: both ends lie in a safetensors file, which is mapped and never copied;
- dropped: the same, when the machine has no memory for the file: its pages are given up before
  every step and read again.

Each way has a process of its own. The time is the median of the steps after the first: of writing
the point into the network (`put`), and of the whole step. Memory is split as Linux does it, into
what only the process has (anonymous) and pages of files, which the machine may give up and read
again. On a GPU the question is another one: what the way over the bus takes.
"""

import argparse
import ctypes
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sslpurify.compute import PLAIN
from sslpurify.curves import Batch, BezierCurve, backward, midpoint_bend
from sslpurify.curves.fit import hand_over, put
from sslpurify.encoders import create
from sslpurify.losses import nt_xent
from sslpurify.rng import generator
from sslpurify.symmetry import Permutation

WAYS = ("resident", "mapped", "dropped")


def write_ends(architecture: str, file: Path) -> None:
    """Random weights and the same with all units exchanged, the trained tensors of both."""
    encoder = create(architecture, image_size=64)
    start = encoder.fresh(0)
    names = [name for name, _ in start.named_parameters()]
    moved = Permutation.random(encoder.spec, generator(0, "permutation")).apply(start.weights())
    both = {"start": start.weights(), "end": moved}
    save_file({f"{end} {n}": w[n].contiguous() for end, w in both.items() for n in names}, file)


def read_end(file: Path, end: str, *, copied: bool) -> dict[str, Tensor]:
    """One end of the curve, in memory or in the file."""
    found = load_file(file)  # mapped, and not read before it is looked at
    chosen = {n.removeprefix(f"{end} "): t for n, t in found.items() if n.startswith(end)}
    return {name: tensor.clone() if copied else tensor for name, tensor in chosen.items()}


def drop(file: Path, curve: BezierCurve) -> None:
    """Gives up the pages of a file, as a machine does that needs the memory for other things."""
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.PAGESIZE
    for state in (curve.start, curve.end):
        for tensor in state.values():
            first = tensor.data_ptr() // page * page
            length = tensor.data_ptr() + tensor.nbytes - first
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(way: str, architecture: str, images: int, steps: int, file: Path) -> dict[str, float]:
    """Times and memory of one way."""
    network = PLAIN.place(create(architecture, image_size=64).fresh(0)).train()
    live = dict(network.named_parameters())
    start, end = (read_end(file, name, copied=way == "resident") for name in ("start", "end"))
    bend = {name: t.requires_grad_() for name, t in midpoint_bend(start, end).items()}
    curve, optimizer = BezierCurve(start, bend, end), torch.optim.Adam(bend.values(), 2e-3)
    views = torch.rand(2 * images, 3, 64, 64, generator=generator(0, "views"))
    batch = Batch([lambda: views], lambda outputs: nt_xent()(*outputs.projection.chunk(2)))
    wholes: list[float] = []
    puts: list[float] = []
    for _ in range(steps + 1):
        if way == "dropped":
            drop(file, curve)
        began = time.perf_counter()
        put(live, curve, 0.3)
        puts.append(time.perf_counter() - began)
        backward(network, batch, PLAIN)
        hand_over(live, bend, 0.3, 1e-6)
        optimizer.step()
        optimizer.zero_grad()
        wholes.append(time.perf_counter() - began)
    return {"put": median(puts[1:]), "step": median(wholes[1:]), **memory()}


def memory() -> dict[str, float]:
    """MiB of this process now: its own, and of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {
        kind: int(fields[name].split()[0]) / 1024
        for kind, name in (("anonymous", "RssAnon"), ("files", "RssFile"))
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--arch", default="simclr/resnet50")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        found = measure(options.only, options.arch, options.images, options.steps, options.file)
        print(json.dumps(found))
        return
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        file = Path(folder) / "ends.safetensors"
        write_ends(options.arch, file)
        ends = file.stat().st_size / 2**20
        for way in WAYS:
            command = [sys.executable, __file__, *sys.argv[1:], "--only", way, "--file", str(file)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[way] = json.loads(told)
    if options.json:
        print(json.dumps({"arch": options.arch, "ends_mib": ends, "ways": results}))
        return
    print(
        f"{options.arch}, {options.images} images of 64x64 in two views; both ends {ends:.0f} MiB"
    )
    print(f"{'':10}{'put':>10}{'step':>10}{'anonymous':>14}{'files':>12}")
    for way, found in results.items():
        times = f"{found['put']:8.3f} s{found['step']:8.2f} s"
        print(f"{way:10}{times}{found['anonymous']:10.0f} MiB{found['files']:8.0f} MiB")


if __name__ == "__main__":
    main()
