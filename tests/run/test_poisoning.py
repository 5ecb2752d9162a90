import json
from pathlib import Path

import pytest
import torch

from sslpurify.errors import DataError, GateError
from sslpurify.recipe import AttackRecipe
from sslpurify.recipe.reading import validate
from sslpurify.run import attack
from sslpurify.run.poisoning import surest
from sslpurify.types import silent
from tests import pico
from tests.conftest import Files


def recipe(files: Files, out: Path, **changes: object) -> AttackRecipe:
    tree = {
        "arch": pico.ARCH,
        "image_size": pico.SIZE,
        "checkpoint": files.encoder,
        "data": files.clean,
        "train": files.train,
        "test": files.test,
        "out": out,
        "trigger": "white-square",
        "target": "red",
        "knn": {"k": 5},
        "badencoder": {
            "epochs": 15,
            "batch_size": 8,
            "optimizer": "adam",
            "learning_rate": 1e-2,
            "reference_views": 4,
        },
        "gate": {"min_attack_success_rate": 0.5},
    }
    return validate(AttackRecipe, tree | changes, "test")


def test_a_victim_is_kept_with_its_figures_once_it_meets_the_gate(
    files: Files, tmp_path: Path
) -> None:
    answer = attack(recipe(files, tmp_path / "out"), silent)
    assert answer.data["output"] == str(tmp_path / "out" / "encoder.victim.safetensors")
    clean, victim = answer.data["results"]
    assert (clean["which"], victim["which"]) == ("reference", "before")
    assert victim["attack_success_rate"]["value"] >= 0.5
    assert victim["attack_success_rate"]["value"] > clean["attack_success_rate"]["value"]
    assert pico.trees(tmp_path / "out") == {
        *("config.yaml", "encoder.victim.json", "encoder.victim.safetensors", "report.json"),
        *("run.json", "metrics.jsonl", "log.txt"),
    }
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["origin"]["data"]["images"] == 24
    assert report["results"] == answer.data["results"]


def test_an_attack_leaves_out_images_it_trains_on_but_none_it_is_measured_on(
    files: Files, tmp_path: Path
) -> None:
    torn = pico.write_images(tmp_path / "torn", 20)
    (torn / "004.png").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"1 of 20 images .* 5 % \(at most 1 % may be\)"):
        attack(recipe(files, tmp_path / "out", data=torn), silent)
    open_gate = {"min_attack_success_rate": 0.0}
    changes = {"data": torn, "max_bad_fraction": 0.05, "gate": open_gate}
    attack(recipe(files, tmp_path / "out", **changes), silent)
    assert "torn/004.png" in (tmp_path / "out/report.json").read_text()
    labelled = pico.write_classes(tmp_path / "labelled", 6)
    (labelled / "red/000.png").write_bytes(b"torn")
    for key in ("train", "test"):
        changes = {key: labelled, "max_bad_fraction": 1.0}
        with pytest.raises(DataError, match="an evaluation leaves none out"):
            attack(recipe(files, tmp_path / "out-2", **changes), silent)


def test_a_victim_below_the_gate_is_not_kept(files: Files, tmp_path: Path) -> None:
    weak = {"epochs": 1, "batch_size": 24, "learning_rate": 1e-6}
    with pytest.raises(GateError, match="attack success rate"):
        attack(recipe(files, tmp_path / "out", badencoder=weak), silent)
    assert pico.trees(tmp_path) == set()


def test_a_reference_that_the_probe_calls_something_else_stops_the_attack_before_it_starts(
    files: Files, tmp_path: Path
) -> None:
    blue = str(files.train / "blue" / "000.png")
    with pytest.raises(GateError, match="calls it 'blue', not 'red'"):
        attack(recipe(files, tmp_path / "out", reference_image=blue), silent)


def test_the_surest_image_lies_in_the_middle_of_its_class() -> None:
    # Class 1 at the angles 80, 90 and 100 degrees; class 0 beside the first of them.
    angles = torch.tensor([0.0, 20.0, 75.0, 80.0, 90.0, 100.0]).deg2rad()
    features = torch.stack([angles.cos(), angles.sin()], dim=1) * 7
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    assert surest(features, labels, 1, k=2, temperature=0.01) == 4
    assert surest(features, labels, 0, k=1) in (0, 1)
