"""Killed at any moment and gone on with, a run ends as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.torture.workloads import Workload, results, workloads

KILLS = int(os.environ.get("SSLPURIFY_KILLS", "8"))
"""Of every purification; ``make torture`` asks for more."""


class Zygote:
    """Where runs are started and killed."""

    def __init__(self, log: Path) -> None:
        self.log = log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def start(self, workload: Workload, out: Path, *, resume: bool) -> int:
        assert self.process.stdin is not None
        print(json.dumps([workload, str(out), resume]), file=self.process.stdin, flush=True)
        return int(self._answer())

    def kill(self, process: int, number: int = signal.SIGKILL) -> int:
        """Send a signal, unless the run is over; how it ended."""
        with suppress(ProcessLookupError):
            os.kill(process, number)
        return self.end()

    def end(self) -> int:
        return int(self._answer())

    def close(self) -> None:
        self.process.communicate()
        self.log.close()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Generator[Zygote]:
    started = Zygote(tmp_path_factory.mktemp("zygote") / "stderr.txt")
    yield started
    started.close()


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workload]:
    return workloads(tmp_path_factory.mktemp("workloads"))


def whole(zygote: Zygote, workload: Workload, out: Path) -> float:
    """An uninterrupted run; returns its seconds, forking and reading included."""
    began = time.monotonic()
    zygote.start(workload, out, resume=False)
    assert zygote.end() == 0, Path(zygote.log.name).read_text()
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("name", ["purify SimCLR", "purify CLIP"])
def test_sigkill_at_any_moment(
    zygote: Zygote, recipes: dict[str, Workload], name: str, tmp_path: Path
) -> None:
    seconds = whole(zygote, recipes[name], tmp_path / "whole")
    wanted, draws, killed = results(tmp_path / "whole"), random.Random(name), 0  # noqa: S311
    for number in range(KILLS):
        workload = {**recipes[name], "save_every": [1e-9, 0.1, 300][number % 3]}
        out = tmp_path / f"{number}"
        process = zygote.start(workload, out, resume=False)
        time.sleep(draws.uniform(0.02, 0.7 * seconds))  # the first run was the slowest
        killed += zygote.kill(process) == -signal.SIGKILL
        zygote.start(workload, out, resume=True)
        assert zygote.end() == 0, Path(zygote.log.name).read_text()
        assert results(out) == wanted, number
        assert not (out / "state").exists()
        assert not list(out.rglob(".*"))
    assert killed


@pytest.mark.slow
def test_killed_again_and_again(
    zygote: Zygote, recipes: dict[str, Workload], tmp_path: Path
) -> None:
    """No attempt lives for longer than a third of a run, and yet it ends."""
    workload = {**recipes["purify SimCLR"], "save_every": 1e-9}
    seconds = whole(zygote, workload, tmp_path / "whole")
    out = tmp_path / "out"
    for attempt in range(20):
        process = zygote.start(workload, out, resume=attempt > 0)
        time.sleep(seconds / 3 + 0.1 * attempt)
        if zygote.kill(process) == 0:
            break
    assert attempt > 0
    assert results(out) == results(tmp_path / "whole")
