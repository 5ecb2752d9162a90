"""Interrupted anywhere and gone on with, a run ends as if nothing had happened."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from sslpurify.curves import fit
from sslpurify.errors import ConfigError, GateError, InterruptionError, TrainingError
from sslpurify.interruption import heeded
from sslpurify.recipe import EvaluateRecipe
from sslpurify.recipe.reading import validate
from sslpurify.run import evaluate
from sslpurify.types import Listener, Step, silent
from tests import pico
from tests.conftest import Files
from tests.torture.workloads import TSC, Workload, results, run, workloads


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workload]:
    return workloads(tmp_path_factory.mktemp("workloads"))


def start(
    workload: Workload, out: Path, listener: Listener = silent, *, resume: bool = False, **keys: Any
) -> Any:
    with heeded(lambda _: None):
        return run({**workload, **keys}, out, listener, resume=resume)


class Signalling:
    """A listener that sends this process a signal at one of the steps."""

    def __init__(self, at: int, number: int = signal.SIGTERM) -> None:
        self.at, self.number, self.told = at, number, list[Step]()

    def __call__(self, step: Step) -> None:
        self.told.append(step)
        if len(self.told) == self.at:
            os.kill(os.getpid(), self.number)


PHASES = [
    "reading",
    "projection head",
    "misaligning",
    "stage 1 · profile",
    "BatchNorm",
    "aligning",
    "stage 2",
    "fine-tuning",
]


@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_is_heeded_in_every_phase(
    runs: dict[str, Workload], phase: str, tmp_path: Path
) -> None:
    told = list[str]()

    def listen(step: Step) -> None:
        told.append(step.stage)
        if phase in step.stage and sum(phase in stage for stage in told) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptionError) as error:
        start(runs["purify SimCLR"], tmp_path / "out", listen)
    assert error.value.exit_code == 130
    assert len([stage for stage in told if phase in stage]) <= 2  # the step at hand, or one more
    assert (tmp_path / "out" / "state").exists() == (phase not in PHASES[:1])


def test_a_signal_while_probing_ends_an_evaluation(files: Files) -> None:
    tree = {"arch": pico.ARCH, "checkpoint": files.encoder, "image_size": pico.SIZE}
    tree |= {"train": files.train, "test": files.test, "knn": {"k": 5}}
    listener = Signalling(3)
    with heeded(lambda _: None), pytest.raises(InterruptionError):
        evaluate(validate(EvaluateRecipe, tree, "test"), listener)
    assert len(listener.told) == 3


@pytest.mark.parametrize(
    "name",
    [
        "purify SimCLR",
        "purify CLIP",
        "BadEncoder",
        "CTRL",
        "patch poisoning",
        "pair poisoning",
        "BadCLIP",
        "pretrain SimCLR",
        "pretrain CLIP",
    ],
)
def test_a_run_interrupted_again_and_again_ends_with_the_same_bytes(
    runs: dict[str, Workload], name: str, tmp_path: Path
) -> None:
    whole, codes, out = Signalling(0), list[int](), tmp_path / "parts"
    start(runs[name], tmp_path / "whole", whole)
    steps = len(whole.told)
    for attempt in range(steps):
        listener = Signalling(steps // 4 + attempt)
        try:
            start(
                runs[name], out, listener, resume=attempt > 0, save_every=[300, 1e-9][attempt % 2]
            )
            break
        except InterruptionError as error:
            codes.append(error.exit_code)
    assert set(codes) == {143}
    assert len(codes) >= 2
    assert results(out) == results(tmp_path / "whole")
    assert not (out / "state").exists()


def test_metrics_hold_every_step_with_a_loss_once(
    runs: dict[str, Workload], tmp_path: Path
) -> None:
    listener = Signalling(0)
    start(runs["purify SimCLR"], tmp_path / "out", listener)
    text = (tmp_path / "out/metrics.jsonl").read_text("utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["stage"], line["step"], line["loss"]) for line in lines] == [
        (step.stage, step.step, step.loss) for step in listener.told if step.loss is not None
    ]


def interrupted(workload: Workload, out: Path, at: int, **keys: Any) -> None:
    with pytest.raises(InterruptionError):
        start(workload, out, Signalling(at), **keys)
    assert list((out / "state").glob("*.safetensors"))


def test_other_settings_and_other_inputs_are_refused_with_what_changed(
    runs: dict[str, Workload], files: Files, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    interrupted(runs["purify SimCLR"], out, 20)
    with pytest.raises(ConfigError, match=r"an interrupted run; .*--resume"):
        start(runs["purify SimCLR"], out)
    with pytest.raises(ConfigError, match=r"tsc\.learning_rate: .* there, 0\.5 now"):
        start(runs["purify SimCLR"], out, resume=True, tsc={**TSC, "learning_rate": 0.5})
    with pytest.raises(ConfigError, match=r"inputs\.images: '[0-9a-f]{64}' there"):
        start(runs["purify SimCLR"], out, resume=True, data=str(files.test))
    other = pico.write_checkpoint(tmp_path / "encoder.safetensors", seed=9)
    with pytest.raises(ConfigError, match=r"inputs\.checkpoint"):
        start(runs["purify SimCLR"], out, resume=True, checkpoint=str(other))
    start(runs["purify SimCLR"], out, resume=True)
    assert start(runs["purify SimCLR"], out, resume=True).data["sha256"]
    left = results(out)
    start(runs["purify SimCLR"], out, resume=True)
    assert results(out) == left
    with pytest.raises(ConfigError, match="a finished run"):
        start(runs["purify SimCLR"], out)
    with pytest.raises(ConfigError, match=r"tsc\.steps"):
        start(runs["purify SimCLR"], out, resume=True, tsc=pico.QUICK)


def test_another_trigger_under_the_same_name_is_refused(
    runs: dict[str, Workload], tmp_path: Path
) -> None:
    trigger = tmp_path / "trigger.yaml"
    trigger.write_text("{kind: sig}")
    keys = {"trigger": str(trigger)}
    interrupted(runs["CTRL"], tmp_path / "out", 12, **keys)
    trigger.write_text("{kind: sig, delta: 41}")
    with pytest.raises(ConfigError, match=r"inputs\.trigger: '[0-9a-f]{64}' there"):
        start(runs["CTRL"], tmp_path / "out", resume=True, **keys)
    trigger.write_text("kind: sig\ndelta: 40.0\n")
    start(runs["CTRL"], tmp_path / "out", resume=True, **keys)


def test_a_torn_newest_state_falls_back_to_the_one_before(
    runs: dict[str, Workload], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    start(runs["purify SimCLR"], tmp_path / "whole")
    interrupted(runs["purify SimCLR"], out, 30, save_every=1e-9)
    states = sorted((out / "state").glob("*.safetensors"))
    assert len(states) == 2
    states[-1].write_bytes(states[-1].read_bytes()[:-100])
    start(runs["purify SimCLR"], out, resume=True)
    assert "torn" in caplog.text
    assert results(out) == results(tmp_path / "whole")


def test_a_loss_that_is_not_finite_keeps_the_last_good_state(
    runs: dict[str, Workload], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls = tmp_path / "out", list[int]()
    start(runs["purify SimCLR"], tmp_path / "whole")
    backward = fit.backward

    def failing(*given: Any) -> float:
        calls.append(1)
        loss = backward(*given)
        return float("nan") if len(calls) == 6 else loss

    with monkeypatch.context() as patch:
        patch.setattr(fit, "backward", failing)
        with pytest.raises(TrainingError) as error:
            start(runs["purify SimCLR"], out, save_every=1e-9)
    assert "stage 2: the loss is nan at step 2 of 4" in str(error.value)
    assert error.value.exit_code == 6
    assert ".png" in str(error.value)  # the images of the step are listed
    assert "--resume" in error.value.__notes__[0]
    start(runs["purify SimCLR"], out, resume=True)
    assert results(out) == results(tmp_path / "whole")


def test_a_missed_gate_leaves_nothing(runs: dict[str, Workload], tmp_path: Path) -> None:
    gate = {"min_attack_success_rate": 1, "max_accuracy_drop": 0}
    with pytest.raises(GateError):
        start(runs["BadEncoder"], tmp_path / "out", gate=gate, save_every=1e-9)
    assert not (tmp_path / "out").exists()


def test_tensorboard_draws_the_losses(runs: dict[str, Workload], tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "out"
    start(runs["pretrain SimCLR"], out, report_to="tensorboard")
    events = accumulator.EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    drawn = [event.value for event in events.Scalars("loss/pre-training")]
    text = (out / "metrics.jsonl").read_text("utf-8")
    wanted = [json.loads(line)["loss"] for line in text.splitlines()]
    assert drawn == pytest.approx(wanted)
