import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sslpurify.checkpoint import read
from sslpurify.errors import ConfigError, UnsafeInputError
from sslpurify.recipe import AttackRecipe, PurifyRecipe
from sslpurify.recipe.reading import validate
from sslpurify.run import attack, purify
from sslpurify.types import silent
from tests import pico
from tests.conftest import Files
from tests.wild.layouts import save_torchscript

RECIPES: dict[Callable[..., Any], type[Any]] = {purify: PurifyRecipe, attack: AttackRecipe}


@pytest.fixture
def wrapped(tmp_path: Path) -> Path:
    """A training checkpoint in half precision, as people publish them."""
    path = tmp_path / "epoch_9.pt"
    state = {
        f"module.{name}": tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in pico.state().items()
    }
    extra = {"module.queue": torch.zeros(3)}
    torch.save({"epoch": 9, "state_dict": state | extra}, path)
    return path


def test_a_file_comes_back_in_its_own_container_keys_and_dtypes(
    files: Files, wrapped: Path, tmp_path: Path
) -> None:
    tree = {
        "arch": pico.ARCH,
        "image_size": pico.SIZE,
        "checkpoint": wrapped,
        "data": files.clean,
        "out": tmp_path / "out",
        "tsc": pico.QUICK,
    }
    answer = purify(validate(PurifyRecipe, tree, "test"), silent)
    before, after = read(wrapped), read(Path(answer.data["output"]))
    assert after.path.name == "epoch_9.purified.pt"
    assert after.sha256 == answer.data["sha256"]
    assert (after.container, after.wrapper) == (before.container, before.wrapper)
    assert after.tree["epoch"] == 9
    assert {name: tensor.dtype for name, tensor in after.tensors.items()} == {
        name: tensor.dtype for name, tensor in before.tensors.items()
    }
    changed = {
        name for name in after.tensors if not torch.equal(after.tensors[name], before.tensors[name])
    }
    assert "module.backbone.layer4.1.conv2.weight" in changed
    assert "module.queue" not in changed


@pytest.mark.parametrize("run", [purify, attack])
def test_a_folder_of_weights_is_not_written_into(run: Callable[..., Any], tmp_path: Path) -> None:
    """Known before anything is read or trained: neither images nor weights are there."""
    hub = tmp_path / "hub"
    hub.mkdir()
    tree = {
        "arch": "hf",
        "checkpoint": tmp_path / "model.pt",
        "data": tmp_path / "images",
        "out": hub / "out",
    }
    if run is attack:
        probing = {"train": tmp_path / "train", "test": tmp_path / "test"}
        tree |= {**probing, "trigger": "white-square", "target": "red"}
    for key in ("checkpoint", "text_from"):
        recipe = validate(RECIPES[run], tree | {key: hub}, "test")
        with pytest.raises(ConfigError, match=r"hub/out lies inside .*hub, which is only read"):
            run(recipe, silent)
    assert pico.trees(tmp_path) == {"hub"}


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_the_permission_for_torchscript_stands_in_the_report(files: Files, tmp_path: Path) -> None:
    save_torchscript(tmp_path / "model.ts")
    path = (tmp_path / "model.ts").rename(tmp_path / os.fsdecode(b"\x1b-\xff.ts"))  # no text
    tree = {
        "arch": pico.ARCH,
        "image_size": pico.SIZE,
        "checkpoint": path,
        "data": files.clean,
        "out": tmp_path / "out",
        "tsc": pico.QUICK,
    }
    with pytest.raises(UnsafeInputError, match="--allow-torchscript"):
        purify(validate(PurifyRecipe, tree, "test"), silent)
    assert not (tmp_path / "out").exists()
    answer = purify(validate(PurifyRecipe, tree | {"allow_torchscript": True}, "test"), silent)
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert report["origin"]["parent"]["file"] == path.name
    decisions = report["origin"]["load_report"]["decisions"]
    assert any("--allow-torchscript" in decision for decision in decisions)
    assert "allow_torchscript: true" in report["origin"]["recipe"]
    assert read(Path(answer.data["output"]), allow_torchscript=True).container == "torchscript"
