from pathlib import Path

import pytest
import torch

from sslpurify.checkpoint import read
from sslpurify.recipe import PurifyRecipe
from sslpurify.recipe.reading import validate
from sslpurify.run import purify
from sslpurify.types import silent
from tests import pico
from tests.conftest import Files


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
