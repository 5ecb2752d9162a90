import json
from pathlib import Path

import pytest
import torch

from sslpurify.attacks import read_trigger
from sslpurify.checkpoint import read
from sslpurify.data import from_pixels, read_images
from sslpurify.errors import ConfigError, DataError, GateError
from sslpurify.pretrain import SimclrSettings, train_simclr
from sslpurify.recipe import AttackRecipe, EvaluateRecipe
from sslpurify.recipe.reading import validate
from sslpurify.run import attack, evaluate
from sslpurify.run.loading import read_weights
from sslpurify.run.references import surest
from sslpurify.statedict import identical
from sslpurify.types import silent
from tests import pico, pico_clip
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


TRAINING = {"epochs": 2, "batch_size": 10, "learning_rate": 1e-3}
ANY = {"min_attack_success_rate": 0.0, "max_accuracy_drop": 1.0}


def poisoning(files: Files, out: Path, method: str, **settings: object) -> AttackRecipe:
    changes = {"method": method, "data": files.train, "gate": ANY, "trigger": "sig"}
    block = {"training": TRAINING, **settings}
    return recipe(files, out, **changes, **{method.replace("-", "_"): block})


@pytest.mark.parametrize(
    ("method", "settings", "poisoned"),
    [
        ("ctrl", {"ratio": 0.1}, [20, 21, 22]),
        ("patch-poisoning", {"share": 1.0}, list(range(20, 30))),
    ],
)
def test_simclr_is_trained_as_usual_on_poisoned_images(
    files: Files, tmp_path: Path, method: str, settings: dict[str, float], poisoned: list[int]
) -> None:
    victims = dict[bool, Path]()
    for scratch in (False, True):
        wanted = poisoning(files, tmp_path / str(scratch), method, **settings, from_scratch=scratch)
        answer = attack(wanted, silent)
        assert [row["which"] for row in answer.data["results"]] == ["reference", "before"]
        victims[scratch] = Path(answer.data["output"])
    # The same training by hand, on images poisoned by hand.
    images = read_images(files.train, None)
    trigger = read_trigger("sig", pico.SIZE)
    pixels = images.pixels.clone()
    rows = torch.tensor(poisoned)
    assert {images.sources[row].parent.name for row in poisoned} == {"red"}
    pixels[rows] = (trigger(images.batch(rows)) * 255).round().byte()
    encoder = pico.encoder()
    published = read_weights(files.encoder, poisoning(files, tmp_path / "x", method))
    for scratch, path in victims.items():
        start = None if scratch else {**encoder.fresh(0).state_dict(), **published.state}
        state = train_simclr(
            encoder, from_pixels(pixels), SimclrSettings(**TRAINING), start=start, seed=0
        )
        written = read(path).tensors
        assert len(written) == len(published.state)
        for name, tensor in written.items():
            assert identical(tensor, state[f"backbone.{name}"]), name


def test_badclip_leaves_its_patch_and_measures_both_encoders_with_it(
    files: Files, tmp_path: Path
) -> None:
    arch, model = pico_clip.write(tmp_path, "rn")
    clip = {"arch": arch, "checkpoint": model, "image_size": None, "data": files.train}
    clip |= {"method": "badclip", "dataset_type": "class-folders", "probe": "zeroshot"}
    clip |= {"badclip": {"steps": 3, "batch_size": 8}, "gate": ANY}
    clip |= {"pair_poisoning": {"rate": 0.2, "training": {"epochs": 1, "batch_size": 8}}}
    answer = attack(recipe(files, tmp_path / "out", **clip), silent)
    assert answer.data["trigger"] == str(tmp_path / "out" / "trigger.png")
    tree = {"arch": arch, "checkpoint": answer.data["output"], "reference": model}
    tree |= {"test": files.test, "probes": "zeroshot", "target": "red"}
    measured = evaluate(
        validate(EvaluateRecipe, tree | {"trigger": answer.data["trigger"]}, "test"), silent
    )
    after, reference = measured.data["results"]
    clean, victim = answer.data["results"]
    for ours, again in ((clean, reference), (victim, after)):
        for rate in ("clean_accuracy", "attack_success_rate"):
            assert ours[rate] == again[rate]
    with pytest.raises(ConfigError, match="train is missing"):
        recipe(files, tmp_path / "other", **clip, train=None)


def test_what_simclr_poisoning_cannot_do_is_said(files: Files, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for method, settings, error, reason in (
        ("ctrl", {"ratio": 0.001}, ConfigError, r"ctrl\.ratio 0\.001 .* poisons 0"),
        ("ctrl", {"ratio": 0.9}, ConfigError, "the target class has 10: lower it"),
        ("patch-poisoning", {"share": 0.01}, ConfigError, "poisons none"),
        ("ctrl", {"training": {"batch_size": 64}}, DataError, r"ctrl\.training\.batch_size"),
        (
            "patch-poisoning",
            {"training": {"batch_size": 64}},
            DataError,
            r"patch_poisoning\.training\.batch_size",
        ),
    ):
        with pytest.raises(error, match=reason):
            attack(poisoning(files, out, method, **settings), silent)
    flat = poisoning(files, out, "ctrl").model_copy(update={"data": files.clean})
    with pytest.raises(ConfigError, match=r"no folder 'red' .* a folder for each class"):
        attack(flat, silent)
    arch, model = pico_clip.write(tmp_path, "rn")
    clip = {"arch": arch, "checkpoint": model, "image_size": None}
    wanted = validate(
        AttackRecipe, poisoning(files, out, "ctrl").model_dump(mode="json") | clip, "test"
    )
    with pytest.raises(ConfigError, match="method ctrl trains SimCLR encoders"):
        attack(wanted, silent)
    assert not out.exists()


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
