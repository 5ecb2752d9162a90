"""A long curve takes no more memory than a short one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.workloads import run, workloads

STEPS, STAGE = 2000, "round 1 · stage 1"
SLACK = 8 * 2**20
"""Bytes that the allocator may keep: a batch in two views is 48 KiB, a state 0.4 MiB."""


def main(folder: str) -> None:
    """Prints the resident bytes after every hundredth step of a curve."""

    def listen(step):
        if step.stage != STAGE:
            return
        if step.step % 100 == 0:
            resident = re.search(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text())
            sys.stdout.write(f"{int(resident[1]) * 1024}\n")
            sys.stdout.flush()
        if step.step == STEPS:
            os._exit(0)

    workload = workloads(Path(folder))["purify SimCLR"]
    tsc = {**workload["tsc"], "steps": STEPS}
    run({**workload, "tsc": tsc, "save_every": 2}, Path(folder) / "out", listen)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_is_flat_after_the_first_hundred_steps(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture.test_soak", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    resident = [int(line) for line in done.stdout.split()]
    assert len(resident) == STEPS // 100
    assert max(resident) - resident[0] < SLACK, resident


if __name__ == "__main__":
    main(sys.argv[1])
