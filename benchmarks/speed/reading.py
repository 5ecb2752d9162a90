"""Peak resident memory and time of reading many images, kept in memory or decoded batch by batch.

    python benchmarks/speed/reading.py FOLDER [--limit 20000] [--size 224]

Each way runs in a process of its own and prints how far its peak lies above that of an interpreter
that has read eight images. Linux only.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from sslpurify.data import read_images

WAYS = {"in memory": 2**40, "batch by batch": 0}


def peak() -> int:
    """Most resident memory of this process so far, in bytes."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError("/proc/self/status does not tell the peak")
    return int(found[1]) * 1024


def measure(folder: Path, limit: int, size: int, memory_limit: int) -> str:
    """One line: what reading, and then a pass over all images, took."""
    read_images(folder, size, limit=8)
    before, started = peak(), time.monotonic()
    images = read_images(folder, size, limit=limit, memory_limit=memory_limit)
    read, grown = time.monotonic() - started, peak() - before
    digest = images.digest()
    passed = time.monotonic() - started - read
    return (
        f"read {read:.0f} s, +{grown / 2**20:,.0f} MiB; "
        f"a pass over all {passed:.0f} s, +{(peak() - before) / 2**20:,.0f} MiB; {digest[:12]}"
    )


def main() -> None:
    """Measures both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--memory-limit", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_limit is not None:
        print(measure(given.folder, given.limit, given.size, given.memory_limit))
        return
    for way, memory_limit in WAYS.items():
        command = [sys.executable, *sys.argv, "--memory-limit", str(memory_limit)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"{way}: {done.stdout}", end="", flush=True)


if __name__ == "__main__":
    main()
