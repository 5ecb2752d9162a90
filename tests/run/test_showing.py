import json
from pathlib import Path

import pytest
from PIL import Image

from sslpurify.errors import ConfigError, DataError
from sslpurify.run import show_trigger
from sslpurify.types import silent
from tests import pico, pico_clip
from tests.conftest import Files
from tests.run.test_poisoning import recipe


def test_a_sheet_is_drawn_and_nothing_else_is_done(files: Files, tmp_path: Path) -> None:
    wanted = recipe(files, tmp_path / "out", checkpoint=tmp_path / "not-yet.pt", trigger="wanet")
    answer = show_trigger(wanted, tmp_path / "new" / "sheet.png", silent)
    assert pico.trees(tmp_path) == {"new", "new/sheet.png"}
    assert answer.data["trigger"] == "wanet"
    assert "strength: 0.5" in answer.data["description"]
    assert answer.data["image_size"] == pico.SIZE
    assert answer.data["difference_times"] in (2, 5, 10)
    with Image.open(tmp_path / "new" / "sheet.png") as picture:
        assert picture.width > 500


def test_without_a_name_it_lies_beside_the_runs_folder(files: Files, tmp_path: Path) -> None:
    wanted = recipe(files, tmp_path / "out", trigger="sig")
    assert show_trigger(wanted, None, silent).data["output"] == str(tmp_path / "out.sig.png")
    with pytest.raises(ConfigError, match=r"out\.sig\.png: exists already"):
        show_trigger(wanted, None, silent)


def test_at_most_one_image_of_each_of_eight_classes(files: Files, tmp_path: Path) -> None:
    many = tmp_path / "many"
    for number in range(12):
        pico.write_images(many / f"{number:02}", 2, seed=number)
    seen = []
    trigger = tmp_path / "trigger.yaml"
    trigger.write_text("{kind: sequence, steps: [{kind: sig}, {kind: noise}]}")
    wanted = recipe(files, tmp_path / "out", test=many, trigger=str(trigger))
    show_trigger(wanted, None, seen.append)
    assert sum(step.images for step in seen) == 12
    with Image.open(tmp_path / "out.trigger-yaml.png") as picture:
        assert picture.width == 150 * (1 + 1.25 * 8)


def test_what_cannot_be_drawn_is_said(files: Files, tmp_path: Path) -> None:
    wanted = recipe(files, tmp_path / "out")
    for name, reason in (("a.jpg", r"the sheet is a PNG"), ("f/a.png", r"f/a\.png: cannot be")):
        (tmp_path / "f").write_text("")
        with pytest.raises(ConfigError, match=reason):
            show_trigger(wanted, tmp_path / name, silent)
    with pytest.raises(DataError, match="windows of 32 × 32"):
        show_trigger(recipe(files, tmp_path / "out", trigger="frequency"), None, silent)
    assert not (tmp_path / "out.frequency.png").exists()


def test_the_command_line_draws_instead_of_training(cli, files: Files, tmp_path: Path) -> None:
    arch, model = pico_clip.write(tmp_path, "rn")
    tree = {"verb": "attack", "arch": arch, "checkpoint": model, "data": files.clean}
    tree |= {"test": files.test, "probe": "zeroshot", "method": "pair-poisoning", "out": "out"}
    tree |= {"trigger": "white-square", "target": "red"}
    text = json.dumps({key: str(value) for key, value in tree.items()})
    (tmp_path / "recipe.yaml").write_text(text)
    shown = cli("attack", "recipe.yaml", "--show", "--json", "--set", "trigger=frequency")
    assert shown.exit_code == 0, shown.output
    answer = json.loads(shown.stdout)
    assert answer["output"] == "out.frequency.png"
    assert answer["image_size"] == pico_clip.SIZE  # the model's own, not the images'
    assert not (tmp_path / "out").exists()
    named = cli("attack", "recipe.yaml", "--show", "sheet.png")
    assert named.exit_code == 0, named.output
    assert (tmp_path / "sheet.png").exists()
    assert cli("attack", "recipe.yaml", "other.png").exit_code == 2
    assert "add --show" in cli("attack", "recipe.yaml", "other.png").output
