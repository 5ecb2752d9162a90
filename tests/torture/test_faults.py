"""Signals and full disks at the command line: the promised exit code, and a way on."""

import os
import shutil
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
from pathlib import Path

phase, limit = sys.argv.pop(1), int(sys.argv.pop(1))
true = edge.telling

def shut():
    out = Path(sys.argv[sys.argv.index("--config") + 1]).parent / "out"
    for folder in (out, out / "state"):
        folder.chmod(0o555)

@contextmanager
def telling(verbose):
    sent = []
    def listen(step):
        if phase and step.stage in phase and not sent:
            sent.append(shut() if "shut" in phase else os.killpg(0, signal.SIGTERM))
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
BOUND = ("setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override")
"""Starts a program as a root that may not write where permissions forbid it."""


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workload]:
    return workloads(tmp_path_factory.mktemp("workloads"))


def command(
    folder: Path,
    workload: Workload,
    *flags: str,
    phase: str = "",
    limit: int = 0,
    bound: bool = False,
) -> subprocess.CompletedProcess[str]:
    """``sslpurify purify`` in a process group of its own, which a phase sends SIGTERM to.

    ``bound``: without root's power to write where permissions forbid it.
    """
    drop = BOUND if bound and os.geteuid() == 0 else ()
    if drop and not shutil.which(drop[0]):
        pytest.skip(f"root writes everywhere, and there is no {drop[0]}")
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**workload, "out": str(folder / "out")}))
    given = [phase, str(limit), workload["verb"], "--config", str(recipe), *flags]
    return subprocess.run(
        [*drop, sys.executable, "-c", CHILD, *given],
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
def test_a_folder_that_cannot_be_written_to(recipes: dict[str, Workload], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o555)
    failed = command(tmp_path, recipes["purify SimCLR"], bound=True)
    assert failed.returncode == 6, failed.stderr
    assert "cannot write to" in failed.stderr
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_a_folder_that_becomes_read_only_loses_nothing(
    recipes: dict[str, Workload], wanted: dict[str, bytes], tmp_path: Path
) -> None:
    workload = {**recipes["purify SimCLR"], "save_every": 1e-9}
    shut = command(tmp_path, workload, phase="shut round 1 · stage 2", bound=True)
    assert shut.returncode == 6, shut.stderr
    assert "cannot be written: Permission denied" in shut.stderr
    assert "--resume" in shut.stderr
    for folder in (tmp_path / "out", tmp_path / "out" / "state"):
        folder.chmod(0o755)
        assert not list(folder.glob(".*"))
    done = command(tmp_path, workload, "--resume")
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out") == wanted
