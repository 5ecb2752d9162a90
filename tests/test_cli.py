import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import Result

from sslpurify.cli.edge import edge
from sslpurify.errors import GateError
from tests import pico
from tests.conftest import Files

Cli = Callable[..., Result]

SHAPE = ("--arch", pico.ARCH, "--force-image-size", pico.SIZE)
VERBS = ("demo", "inspect", "purify", "evaluate", "aggregate", "attack", "recipe", "doctor")


def test_help_of_every_verb_imports_nothing_heavy() -> None:
    program = f"""
import sys
from sslpurify.cli import app
for verb in {("", *VERBS)}:
    try:
        app([verb, "--help"] if verb else ["--help"])
    except SystemExit as done:
        assert done.code == 0, verb
heavy = {{"torch", "transformers", "faiss", "lightly", "numpy"}} & set(sys.modules)
assert not heavy, heavy
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)


@pytest.fixture
def evaluation(files: Files) -> list[object]:
    """The arguments of an evaluation that works."""
    return [
        *("evaluate", files.encoder, *SHAPE, "--train", files.train, "--test", files.test),
        *("--set", "knn.k=5"),
    ]


@pytest.fixture
def purification(files: Files) -> list[object]:
    """The arguments of a purification that works."""
    return [
        *("purify", files.encoder, *SHAPE, "--data", files.clean, "--out", "out"),
        *pico.set_flags(tsc=pico.QUICK),
    ]


def test_evaluate_prints_one_json_object_of_the_documented_shape(
    cli: Cli, evaluation: list[object], files: Files
) -> None:
    done = cli(
        *evaluation,
        *("--before", files.encoder, "--reference", files.encoder, "--probe", "knn,linear"),
        *("--trigger", "white-square", "--target", "red", "--json"),
    )
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == {"results", "changes", "protocol", "seconds", "origin"}
    assert answer["protocol"] == "exclude-target"
    assert [(row["which"], row["probe"]) for row in answer["results"]] == [
        (which, probe) for which in ("before", "after", "reference") for probe in ("knn", "linear")
    ]
    for row in answer["results"]:
        for rate, n in ((row["clean_accuracy"], 18), (row["attack_success_rate"], 12)):
            assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1
            assert rate["n"] == n
        by_class = [each["attack_success_rate"] for each in row["classes"]]
        assert [rate and rate["n"] for rate in by_class] == [6, 6, None]
    for change in answer["changes"]:  # the same encoder twice
        for rate, n in ((change["clean_accuracy"], 18), (change["attack_success_rate"], 12)):
            assert (rate["value"], rate["p"], rate["n"]) == (0, 1, n)
    assert set(answer["origin"]["checkpoints"]) == {"before", "after", "reference"}


def test_evaluate_shows_classes_to_people_who_ask(cli: Cli, evaluation: list[object]) -> None:
    assert "class, knn" not in cli(*evaluation, "--shots", "2").stdout
    shown = cli(*evaluation, "--shots", "2", "--per-class").stdout
    assert [line.split()[0] for line in shown.splitlines()[-5:-2]] == ["blue", "green", "red"]


def test_evaluate_without_a_trigger_has_no_success_rate(cli: Cli, evaluation: list[object]) -> None:
    done = cli(*evaluation, "--json")
    (row,) = json.loads(done.stdout)["results"]
    assert row["which"] == "after"
    assert row["attack_success_rate"] is None


def test_purify_leaves_a_checkpoint_in_its_own_format_and_how_it_was_made(
    cli: Cli, purification: list[object], tmp_path: Path
) -> None:
    done = cli(*purification, "--seed", "7", "--json")
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == {"output", "sha256", "seconds", "stages"}
    assert answer["output"] == "out/encoder.purified.safetensors"
    assert [stage["kind"] for stage in answer["stages"]] == ["head", "curve", "curve"]
    assert pico.trees(tmp_path) == {
        "out",
        "out/config.yaml",
        "out/curves.safetensors",
        "out/encoder.purified.json",
        "out/encoder.purified.safetensors",
        "out/profile-round-1-stage-1.png",
        "out/profile-round-1-stage-2.png",
        "out/profile-round-1-stage-1.svg",
        "out/profile-round-1-stage-2.svg",
        "out/report.html",
        "out/report.json",
        "out/run.json",
        "out/metrics.jsonl",
        "out/log.txt",
    }
    origin = json.loads((tmp_path / "out/encoder.purified.json").read_text())
    assert origin["sha256"] == answer["sha256"]
    assert origin["seed"] == 7
    assert origin["data"]["images"] == 24
    assert "image_size: 16" in origin["recipe"]


def test_purify_goes_on_without_unreadable_images_up_to_the_fraction(
    cli: Cli, purification: list[object], tmp_path: Path
) -> None:
    torn = pico.write_images(tmp_path / "torn", 20)
    for name in ("003.png", "011.png"):
        (torn / name).write_bytes(b"torn")
    arguments = [*purification, "--data", "torn"]
    refused = cli(*arguments)
    assert refused.exit_code == 5
    assert "2 of 20 images in torn cannot be read, 10 % (at most 1 % may be)" in refused.stderr
    assert "torn/003.png: not an image" in refused.stderr
    assert not (tmp_path / "out").exists()
    assert cli(*arguments, "--max-bad-fraction", "0.09").exit_code == 5
    done = cli(*arguments, "--max-bad-fraction", "0.1")
    assert done.exit_code == 0, done.stderr
    assert "left out: torn/011.png: not an image" in done.stderr
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [entry.split(":")[0] for entry in report["unreadable"]] == [
        "torn/003.png", "torn/011.png"
    ]  # fmt: skip
    assert report["origin"]["data"]["images"] == 18
    assert "max_bad_fraction: 0.1" in (tmp_path / "out/config.yaml").read_text()


def test_the_pictures_of_an_earlier_run_inside_the_data_are_no_data(
    cli: Cli, purification: list[object], tmp_path: Path
) -> None:
    first = cli(*purification, "--json")
    pico.write_images(tmp_path / "data", 24)
    (tmp_path / "out").rename(tmp_path / "data/earlier")
    again = cli(*purification, "--data", "data", "--out", "again", "--json")
    assert again.exit_code == 0, again.stderr
    assert "left out: data/earlier: the folder of a run" in again.stderr
    sha256 = [json.loads(done.stdout)["sha256"] for done in (first, again)]
    assert sha256[0] == sha256[1]


def test_the_saved_configuration_makes_the_same_bytes_again(
    cli: Cli, purification: list[object]
) -> None:
    first = cli(*purification, "--quiet")
    assert first.stderr == ""
    assert "round 1 · stage 2" in first.stdout
    again = cli("purify", "--config", "out/config.yaml", "--out", "again", "--json")
    assert json.loads(again.stdout)["sha256"] in first.stdout


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (["--config", "missing.yaml"], 2, "missing.yaml: no such recipe"),
        (["--set", "tsc.stepz=3"], 2, "tsc.stepz: unknown key; did you mean tsc.steps?"),
        (["--set", "steps=3"], 2, "steps: unknown key; did you mean tsc.steps?"),
        (["--set", "tsc.steps=-1"], 2, "tsc.steps: input should be greater than"),
        (["--arch", "simclr/resnet19"], 2, "unknown architecture 'simclr/resnet19'"),
        (["--device", "abacus"], 2, "device"),
        (["--arch", "simclr/resnet18"], 4, f"Best guess: {pico.ARCH}"),
        (["--data", "missing"], 5, "missing does not exist"),
        (["--data", "empty"], 5, "empty has no images"),
        (["--data", "three"], 5, "3 clean images are too few: one batch"),
        (["--data", "three"], 5, "needs 8; give more images, or lower tsc.batch_size"),
        (["--set", "limit=7"], 5, "7 clean images are too few"),
        (["--set", "limit=7"], 5, "needs 8; raise limit (7), or lower tsc.batch_size"),
        (["--max-bad-fraction", "1.5"], 2, "max_bad_fraction: input should be less than"),
        (["--set", "limit=25"], 5, "limit is 25"),
        (["--out", "three/out"], 2, "lies inside three, which is only read"),
        (["--out", "three"], 2, "three is not empty"),
        (["--method", "prayer"], 2, "method: input should be 'tsc'"),
        (["--bogus"], 2, "No such option"),
    ],
)
def test_a_bad_purification_is_one_message_and_leaves_nothing(
    cli: Cli, purification: list[object], tmp_path: Path, change: list[str], code: int, says: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    pico.write_images(tmp_path / "three", 3)
    if "three/out" in change:
        change = [*change, "--data", "three"]
    before = pico.trees(tmp_path)
    done = cli(*purification, *change)
    assert done.exit_code == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert pico.trees(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (["--target", "mauve", "--trigger", "badnets"], 2, "there are: blue, green, red"),
        (["--target", "red"], 2, "trigger and target come together"),
        (["--target", "red", "--trigger", "small.png"], 5, "small.png is 8 × 8"),
        (["--target", "red", "--trigger", "no-such"], 5, "no such built-in trigger"),
        (["--set", "knn.k=31"], 5, "k = 31"),
        (["--probe", "knn,tarot"], 2, "probes.1: input should be 'knn'"),
        (["--protocol", "some"], 2, "protocol: input should be"),
        (["--image-mean", "0.5", "0.5", "0.5"], 2, "image_mean and image_std come together"),
        (["--before", "missing.pt"], 4, "missing.pt: cannot be read"),
        (["--test", "fewer"], 5, "fewer differs in its classes"),
        (["--test", "fewer"], 5, "it lacks red"),
        (["--train", "fewer"], 5, "it alone has red"),
        (["--test", "hollow"], 5, "class folder hollow/red has no images"),
        (["--test", "torn"], 5, "2 images cannot be read, and an evaluation leaves none out"),
        (["--train", "torn"], 5, "torn/red/000.png: not an image"),
        (["--test", "torn", "--set", "train_per_class=2"], 5, "torn/blue/001.png: not an image"),
    ],
)
def test_a_bad_evaluation_is_one_message(
    cli: Cli, evaluation: list[object], tmp_path: Path, change: list[str], code: int, says: str
) -> None:
    Image.new("RGB", (8, 8), "white").save(tmp_path / "small.png")
    fewer = pico.write_classes(tmp_path / "fewer", 2)
    for file in (fewer / "red").iterdir():
        file.unlink()
    (fewer / "red").rmdir()
    hollow = pico.write_classes(tmp_path / "hollow", 2)
    for file in (hollow / "red").iterdir():
        file.unlink()
    torn = pico.write_classes(tmp_path / "torn", 2)
    for file in ("red/000.png", "blue/001.png"):
        (torn / file).write_bytes(b"torn")
    done = cli(*evaluation, *change)
    assert done.exit_code == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_missing_checkpoint_leaves_nothing(cli: Cli, files: Files, tmp_path: Path) -> None:
    done = cli("purify", "missing.pt", *SHAPE, "--data", files.clean, "--out", "out")
    assert done.exit_code == 4
    assert "missing.pt: cannot be read" in done.stderr
    assert pico.trees(tmp_path) == set()


def test_an_error_is_one_json_object_too(cli: Cli) -> None:
    done = cli("inspect", "missing.pt", "--json")
    assert done.exit_code == 4
    answer = json.loads(done.stdout)
    assert answer["exit_code"] == 4
    assert "missing.pt" in answer["error"]


def test_all_errors_of_a_purification_come_at_once(cli: Cli) -> None:
    done = cli("purify", "--set", "seed=x", "--set", "tsc.steps=0")
    assert done.exit_code == 2
    for key in ("arch: missing", "checkpoint: missing", "data: missing", "out: missing"):
        assert key in done.stderr
    assert "seed: " in done.stderr
    assert "tsc.steps: " in done.stderr


def test_inspect_says_what_fits(cli: Cli, files: Files) -> None:
    done = cli("inspect", files.encoder, "--json")
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert list(answer) == [
        *("format", "architecture", "confidence", "groups", "ignored", "problems"),
        *("files", "wrapper", "prefix", "tensors", "parameters", "dtypes", "decisions"),
        *("warnings", "next"),
    ]
    assert answer["prefix"] == ""
    assert answer["dtypes"] == {"float32": 100, "int64": 20}
    assert answer["decisions"] == answer["warnings"] == []
    command = answer["next"].split()
    assert command[:2] == ["sslpurify", "purify"]
    assert command[3:5] == ["--arch", pico.ARCH]
    assert answer["format"] == "safetensors"
    assert answer["architecture"] == pico.ARCH
    assert answer["confidence"] == 1
    assert {group["kind"] for group in answer["groups"]} == {"inner", "residual"}
    assert answer["problems"] == []


def test_inspect_of_another_architecture_names_the_one_that_fits(cli: Cli, files: Files) -> None:
    done = cli("inspect", files.encoder, "--arch", "simclr/resnet50", "--json")
    assert done.exit_code == 4
    answer = json.loads(done.stdout)
    assert answer["architecture"] == pico.ARCH
    assert "simclr/resnet50" in answer["problems"][0]


def test_doctor_answers_and_warns_of_the_unsafe_variable(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    answer = json.loads(cli("doctor", "--json").stdout)
    assert answer["versions"]["torch"]
    assert answer["devices"][0] == "cpu"
    assert any("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" in warning for warning in answer["warnings"])


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (GateError("too weak"), 7, "sslpurify: too weak"),
        (GateError("\x1b[2J\udcff.pt"), 7, r"sslpurify: \x1b[2J\udcff.pt"),
        (ZeroDivisionError("1/0"), 1, "internal error"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_every_error_ends_with_its_code_and_no_traceback(
    error: BaseException, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as end, edge(as_json=False, debug=False):
        raise error
    assert end.value.exit_code == code
    shown = capsys.readouterr().err
    assert says in shown
    assert "Traceback" not in shown


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), edge(as_json=False, debug=True):
        raise ZeroDivisionError("1/0")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_its_code_and_says_how_to_go_on(
    purification: list[object], tmp_path: Path, number: int, code: int
) -> None:
    command = [sys.executable, "-m", "sslpurify", *map(str, purification), "--verbose"]
    endless = [*command, "--set", "tsc.steps=1000000"]
    with subprocess.Popen(endless, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        shown = next(line for line in run.stderr if "stage 1" in line)
        run.send_signal(number)
        rest = run.stderr.read()
    assert run.returncode == code, rest
    assert ("interrupted" if number == signal.SIGINT else "ended by signal 15") in rest
    assert rest.rstrip().endswith("--resume")
    assert "Traceback" not in shown + rest
    assert any("/state/" in name for name in pico.trees(tmp_path))
