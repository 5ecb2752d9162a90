"""The command line under ``torchrun``: one result, and signals that all processes heed together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import pico_clip
from tests.torture.workloads import Workload, results, workloads

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    """A CLIP with a ViT, whose loss compares the images of all processes.

    The smallest ModifiedResNet has dead channels, which may change places as rounding will.
    """
    folder = tmp_path_factory.mktemp("workload")
    plain = workloads(folder)["purify CLIP"]
    arch, model = pico_clip.write(folder, "vit")
    longer = {"arch": arch, "checkpoint": str(model), "save_every": 1e-9}
    return {**plain, **longer, "tsc": {**plain["tsc"], "steps": 12}}


def start(folder: Path, workload: Workload, count: int, *flags: str) -> subprocess.Popen[str]:
    """``sslpurify purify`` in so many processes, of which the first may speak."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**workload, "out": str(folder / "out")}))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return subprocess.Popen(
        [
            *(sys.executable, *torchrun, "-m", "sslpurify", workload["verb"]),
            *("--config", str(recipe), "--json", *flags),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def end(started: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    said, told = started.communicate(timeout=300)
    assert started.returncode == code, told
    return said, told


def metrics(folder: Path) -> list[dict[str, Any]]:
    file = folder / "out" / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture(scope="module")
def whole(workload: Workload, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have purified without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    said, told = end(start(folder, workload, 2))
    assert json.loads(said)["output"] == str(folder / "out" / "vit.purified.safetensors")
    assert "destroy_process_group" not in told
    return folder


def test_two_processes_take_the_steps_of_one(
    workload: Workload, whole: Path, tmp_path: Path
) -> None:
    end(start(tmp_path, workload, 1))
    one, two = metrics(tmp_path), metrics(whole)
    assert [(m["stage"], m["step"]) for m in two] == [(m["stage"], m["step"]) for m in one]
    for mine, theirs in zip(one, two, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-3)


def test_a_signal_stops_all_and_they_go_on_to_the_same_bytes(
    workload: Workload, whole: Path, tmp_path: Path
) -> None:
    started = start(tmp_path, workload, 2)
    while len(metrics(tmp_path)) < 20 and started.poll() is None:
        time.sleep(0.05)
    started.send_signal(signal.SIGTERM)
    _, told = started.communicate(timeout=300)
    assert started.returncode != 0, told
    assert "go on with: the same torchrun command and --resume" in told
    assert (tmp_path / "out" / "state").exists()
    end(start(tmp_path, workload, 2, "--resume"))
    assert results(tmp_path / "out") == results(whole / "out")
