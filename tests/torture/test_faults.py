"""Signals and full disks at the command line: the promised exit code, and a way on."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.torture.workloads import Workload, results, workloads

CHILD = """
import os, resource, signal, sys
from sslpurify import cli, run
from sslpurify.checkpoint import write as _
import sslpurify.cli.edge as edge
import sslpurify.run.output as output
from contextlib import contextmanager

phase, limit = sys.argv.pop(1), int(sys.argv.pop(1))
true = edge.telling

@contextmanager
def telling(verbose):
    sent = []
    def listen(step):
        if phase and phase in step.stage and not sent:
            sent.append(os.killpg(0, signal.SIGTERM))
        if limit and step.stage == "round 1 · stage 2":
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with true(verbose):
        yield listen

cli.commands.telling = telling
if phase == "saving":
    save = output.write
    def write(*given):
        os.killpg(0, signal.SIGTERM)
        return save(*given)
    output.write = write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
cli.main()
"""


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workload]:
    return workloads(tmp_path_factory.mktemp("workloads"))


def command(
    folder: Path, workload: Workload, *flags: str, phase: str = "", limit: int = 0
) -> subprocess.CompletedProcess[str]:
    """``sslpurify purify`` in a process group of its own, which a phase sends SIGTERM to."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**workload, "out": str(folder / "out")}))
    given = [phase, str(limit), workload["verb"], "--config", str(recipe), *flags]
    return subprocess.run(
        [sys.executable, "-c", CHILD, *given],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def wanted(
    recipes: dict[str, Workload], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    done = command(folder, recipes["purify SimCLR"])
    assert done.returncode == 0, done.stderr
    return results(folder / "out")


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["round 1 · stage 1", "saving"])
def test_sigterm_to_the_process_group(
    recipes: dict[str, Workload], wanted: dict[str, bytes], phase: str, tmp_path: Path
) -> None:
    stopped = command(tmp_path, recipes["purify SimCLR"], phase=phase)
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert (
        f"go on with: sslpurify purify --config {tmp_path}/recipe.yaml --resume" in stopped.stderr
    )
    assert "Traceback" not in stopped.stderr
    done = command(tmp_path, recipes["purify SimCLR"], "--resume")
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out") == wanted


@pytest.mark.slow
def test_a_disk_that_fills_up_loses_nothing(
    recipes: dict[str, Workload], wanted: dict[str, bytes], tmp_path: Path
) -> None:
    full = command(tmp_path, {**recipes["purify SimCLR"], "save_every": 1e-9}, limit=2000)
    assert full.returncode == 6, full.stderr
    assert "cannot be written: File too large" in full.stderr
    assert "--resume" in full.stderr
    assert not list((tmp_path / "out").rglob(".*"))
    done = command(tmp_path, recipes["purify SimCLR"], "--resume")
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out") == wanted


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_to(recipes: dict[str, Workload], tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "out").mkdir(mode=0o555)
    failed = command(tmp_path, recipes["purify SimCLR"])
    assert failed.returncode == 6, failed.stderr
    assert "cannot write to" in failed.stderr
