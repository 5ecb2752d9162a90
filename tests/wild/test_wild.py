"""Every layout loads to bit-identical weights, and goes back in its own layout bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sslpurify.checkpoint import Checkpoint, read, write
from sslpurify.encoders import create, extract, locate, restore
from sslpurify.errors import UnsafeInputError
from sslpurify.statedict import identical
from tests import pico
from tests.wild import layouts

WITH_HEAD = {"badencoder simclr", "lightning", "lightly"}
SAVERS: dict[str, Callable[[Any, Path], None]] = {
    "zip": layouts.save_zip,
    "legacy": layouts.save_legacy,
    "protocol 5": layouts.save_protocol_5,
}
FOLDERS: dict[str, dict[str, Any]] = {
    "hugging face": {},
    "hugging face, sharded": {"shards": 3},
    "hugging face, pickled": {"pickled": True},
    "hugging face, pickled and sharded": {"shards": 3, "pickled": True},
}


def content(path: Path) -> dict[str, bytes]:
    files = path.rglob("*") if path.is_dir() else [path]
    return {f.relative_to(path).as_posix(): f.read_bytes() for f in files}


def goes_round(checkpoint: Checkpoint, folder: Path, *, head: bool = False) -> None:
    """Weights are read as they were made, and written where they were."""
    source = content(checkpoint.path)
    layout = locate(checkpoint.tensors, create(pico.ARCH), [])
    assert layout.has_head == head
    state = extract(checkpoint, layout)
    made, other = (under_our_names(seed, head) for seed in (0, 7))
    dtypes = {name: checkpoint.tensors[key].dtype for name, key in layout.keys.items()}
    assert state.keys() == made.keys() == dtypes.keys()
    assert all(torch.equal(state[n].to(d), made[n].to(d)) for n, d in dtypes.items())
    write(restore(checkpoint, layout, state), folder / "same")
    assert content(folder / "same") == source
    write(restore(checkpoint, layout, other), folder / "other")
    again = read(folder / "other", allow_torchscript=checkpoint.container == "torchscript")
    written = extract(again, layout)
    assert all(torch.equal(written[n].to(d), other[n].to(d)) for n, d in dtypes.items())
    untouched = again.tensors.keys() - layout.keys.values()
    assert all(identical(again.tensors[n], checkpoint.tensors[n]) for n in untouched)
    write(restore(again, layout, state), folder / "back")
    assert content(folder / "back") == source


def under_our_names(seed: int, head: bool) -> dict[str, Tensor]:
    return layouts.prefixed(layouts.BACKBONE, layouts.backbone(seed)) | (
        layouts.prefixed(layouts.HEAD, layouts.head(seed)) if head else {}
    )


@pytest.mark.parametrize("saver", SAVERS)
@pytest.mark.parametrize("name", layouts.TREES)
def test_files_of_torch(name: str, saver: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    SAVERS[saver](layouts.TREES[name](), path)
    goes_round(read(path), tmp_path, head=name in WITH_HEAD)


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(name: str, tmp_path: Path) -> None:
    layouts.save_folder(tmp_path / "model", **FOLDERS[name])
    goes_round(read(tmp_path / "model"), tmp_path)


def test_safetensors(tmp_path: Path) -> None:
    layouts.save_safetensors(tmp_path / "model")
    goes_round(read(tmp_path / "model"), tmp_path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torchscript_is_read_without_being_run(tmp_path: Path) -> None:
    path = tmp_path / "model"
    layouts.save_torchscript(path)
    with pytest.raises(UnsafeInputError, match="--allow-torchscript"):
        read(path)
    checkpoint = read(path, allow_torchscript=True)
    assert checkpoint.container == "torchscript"
    goes_round(checkpoint, tmp_path)
    images = torch.rand(2, 3, 16, 16)
    network = pico.encoder().load(pico.state(7))
    ours, theirs = network.backbone.eval()(images), torch.jit.load(tmp_path / "other")(images)
    torch.testing.assert_close(theirs, ours)


@pytest.mark.parametrize("name", ["lightning", "metrics", "timm", "dino"])
def test_other_programs_find_their_settings_again(name: str, tmp_path: Path) -> None:
    torch.save(layouts.TREES[name](), tmp_path / "model")
    checkpoint = read(tmp_path / "model")
    assert checkpoint.inert
    assert "collections.OrderedDict" not in checkpoint.inert
    layout = locate(checkpoint.tensors, create(pico.ARCH), [])
    new = under_our_names(7, name in WITH_HEAD)
    write(restore(checkpoint, layout, new), tmp_path / "new")
    tree = torch.load(tmp_path / "new", weights_only=False)
    before = torch.load(tmp_path / "model", weights_only=False)
    assert tree.keys() == before.keys()
    if name == "lightning":
        config = tree["hyper_parameters"]["config"]
        assert type(config) is layouts.Config
        assert config.optimizer is torch.optim.AdamW
        assert tree["global_step"] == 99
    if name == "metrics":
        assert tree["best"] == before["best"]
        assert tree["history"][3] == before["history"][3]


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    torch.save(layouts.tied(), tmp_path / "model")
    checkpoint = read(tmp_path / "model")
    layout = locate(checkpoint.tensors, create(pico.ARCH), [])
    write(restore(checkpoint, layout, under_our_names(7, head=False)), tmp_path / "new")
    tree = torch.load(tmp_path / "new", weights_only=True)
    for name, tensor in layouts.backbone(7).items():
        assert torch.equal(tree["swa"][name], tensor)
        assert torch.equal(tree["state_dict"][f"encoder.{name}"], tensor)
