import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import Result

from sslpurify.checkpoint import new, write
from sslpurify.recipe import PurifyRecipe
from sslpurify.recipe.reading import validate
from sslpurify.run import purify
from sslpurify.types import silent
from tests import pico
from tests.conftest import Files

TSC = {**pico.QUICK, "steps": 2, "learning_rate": 0.01, "t_misaligned": 0.5, "t_aligned": 0.5}


@pytest.fixture(scope="module")
def finished(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, beside copies of what it was given."""
    root = tmp_path_factory.mktemp("run")
    shutil.copytree(files.clean, root / "clean")
    shutil.copy(files.encoder, root / "encoder.safetensors")
    tree = {
        "arch": pico.ARCH,
        "image_size": pico.SIZE,
        "seed": 4,
        "checkpoint": root / "encoder.safetensors",
        "data": root / "clean",
        "out": root / "out",
        "tsc": TSC,
    }
    purify(validate(PurifyRecipe, tree, "test"), silent)
    return root / "out"


@pytest.fixture
def arguments(finished: Path, files: Files) -> list[object]:
    return [
        *("evaluate", "--sweep", finished, "--train", files.train, "--test", files.test),
        *("--trigger", "white-square", "--target", "red"),
        *("--set", "knn.k=5", "--set", "sweep_points=3"),
    ]


def test_a_sweep_needs_the_run_alone_and_agrees_with_its_result(
    cli: Callable[..., Result], arguments: list[object], finished: Path, files: Files
) -> None:
    kept = {path.name: path.read_bytes() for path in finished.iterdir()}
    done = cli(*arguments, "--reference", files.encoder, "--probe", "knn,linear", "--json")
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["origin"]["checkpoints"]["after"]["file"] == "encoder.purified.safetensors"
    assert answer["origin"]["checkpoints"]["before"]["file"] == "encoder.safetensors"

    first, second = answer["sweep"]
    assert [first["name"], second["name"]] == ["round 1 · stage 1", "round 1 · stage 2"]
    assert [point["t"] for point in first["points"]] == [0, 0.5, 1]
    assert (second["chosen"], len(second["profile"]["points"])) == (0.5, 2)
    after = [
        {key: row[key] for key in ("probe", "clean_accuracy", "attack_success_rate")}
        for row in answer["results"]
        if row["which"] == "after"
    ]
    assert second["points"][1]["results"] == after  # the point that was taken is the result
    assert second["points"][2]["results"] == first["points"][1]["results"]

    left = {path.name: path.read_bytes() for path in finished.iterdir()}
    assert {name: left[name] for name in kept} == kept
    pictures = {f"sweep-round-1-stage-{number}.png" for number in (1, 2)}
    drawings = {name.replace(".png", ".svg") for name in pictures}
    assert set(left) - set(kept) == {"sweep.json", *pictures, *drawings}
    assert json.loads(left["sweep.json"]) == answer
    for name in pictures:
        with Image.open(finished / name) as picture:
            assert picture.height == 3 * 460


def test_people_get_a_table(cli: Callable[..., Result], arguments: list[object]) -> None:
    done = cli(*arguments, "--set", "sweep_points=2")
    assert done.exit_code == 0, done.stderr
    assert "taken by the purification, which saw none of this" in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.startswith("round 1")]) == 4


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("clean/000.png", "clean has changed since"),
        ("encoder.safetensors", "encoder.safetensors has changed since"),
        ("out/report.json", "no folder of a finished purification"),
        ("out/curves.safetensors", "has no curves.safetensors"),
        ("out/config.yaml", "no such recipe file"),
        ("out/run.json", "no such file"),
    ],
)
def test_a_run_that_is_not_what_it_was_is_refused(
    cli: Callable[..., Result],
    finished: Path,
    files: Files,
    tmp_path: Path,
    spoil: str,
    says: str,
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished.parent, root, ignore=shutil.ignore_patterns("sweep*"))
    config = root / "out" / "config.yaml"
    config.write_text(config.read_text().replace(str(finished.parent), str(root)))
    if spoil == "clean/000.png":
        shutil.copy(root / "clean" / "001.png", root / spoil)
    elif spoil == "encoder.safetensors":
        pico.write_checkpoint(root / spoil, seed=9)
    else:
        (root / spoil).unlink()
    done = cli(
        *("evaluate", "--sweep", root / "out", "--train", files.train, "--test", files.test),
        *("--set", "knn.k=5"),
    )
    assert done.exit_code == 2, done.stderr
    assert says in done.stderr
    assert not (root / "out" / "sweep.json").exists()


@pytest.mark.parametrize(
    ("standing", "says"),
    [
        ("{}", "is no state of a run"),
        ('{"pieces":' + "[" * 99_999, "is no state of a run"),
        (
            '{"pieces": [{"name": "x", "facts": {}}], "done": 1, "metrics": 0}',
            "the trace of 'x' is damaged",
        ),
    ],
)
def test_a_file_of_something_else_than_curves_is_an_unusable_checkpoint(
    cli: Callable[..., Result],
    arguments: list[object],
    finished: Path,
    tmp_path: Path,
    standing: str,
    says: str,
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished, root)
    (root / "curves.safetensors").unlink()
    write(new({"version": torch.ones(1)}, {"standing": standing}), root / "curves.safetensors")
    done = cli(*arguments, "--sweep", root)
    assert done.exit_code == 4, done.stderr
    assert says in done.stderr
