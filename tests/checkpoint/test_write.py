import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sslpurify.checkpoint import new, read, replace, write
from sslpurify.errors import CheckpointError, ConfigError, TrainingError
from sslpurify.statedict import digest, identical
from tests.checkpoint.files import SAVERS, save_legacy, save_zip, weights

EVERY_CONTAINER = pytest.mark.parametrize("container", SAVERS)
TREE: dict[str, Any] = {
    "epoch": 7,
    "state_dict": weights(0),
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
    "best": float("nan"),
    "shape": torch.Size([1, 2]),
    "names": ("a", None, True, 1j),
    "sparse": torch.eye(3).to_sparse(),
    "others": [torch.ones(2, dtype=kind) for kind in (torch.complex64, torch.bool, torch.int16)],
}


@EVERY_CONTAINER
def test_changed_weights_come_back_in_the_form_they_had(container, tmp_path):
    source, target = tmp_path / "model.pt", tmp_path / "clean.pt"
    SAVERS[container](weights(0, torch.float16), source)
    before = source.read_bytes()
    checkpoint = read(source)
    new = weights(1)
    digest_of_new = digest(new)
    changed = replace(checkpoint, new)
    assert digest(checkpoint.tensors) == digest(weights(0, torch.float16))
    sha256 = write(changed, target)
    again = read(target)
    assert sha256 == again.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert (again.container, again.metadata) == (container, checkpoint.metadata)
    assert list(again.tensors) == list(checkpoint.tensors)
    expected = weights(1, torch.float16)
    assert all(identical(again.tensors[name], expected[name]) for name in expected)
    assert source.read_bytes() == before
    assert digest(new) == digest_of_new
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean.pt", "model.pt"]


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize("save", [save_zip, save_legacy])
def test_everything_else_in_the_tree_is_kept(save, tmp_path):
    save(TREE, tmp_path / "model.pt")
    checkpoint = read(tmp_path / "model.pt")
    write(replace(checkpoint, {"bn1.weight": torch.ones(4)}), tmp_path / "clean.pt")
    tree = torch.load(tmp_path / "clean.pt", weights_only=True)
    assert list(tree) == list(TREE)
    assert type(tree["state_dict"]) is OrderedDict
    assert tree["state_dict"].__dict__["_metadata"] == weights().__dict__["_metadata"]
    assert torch.equal(tree["state_dict"]["bn1.weight"], torch.ones(4))
    assert torch.equal(tree["state_dict"]["conv1.weight"], weights()["conv1.weight"])
    assert tree["optimizer"] == TREE["optimizer"]
    assert (tree["epoch"], tree["shape"], tree["names"]) == (7, torch.Size([1, 2]), TREE["names"])
    assert torch.equal(tree["sparse"].to_dense(), torch.eye(3))
    assert all(map(identical, tree["others"], TREE["others"]))


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.uint16])
def test_unusual_dtypes_elsewhere_are_kept(kind, tmp_path):
    tree = {"state_dict": weights(), "other": torch.ones(3).to(kind)}
    save_zip(tree, tmp_path / "model.pt")
    write(read(tmp_path / "model.pt"), tmp_path / "copy.pt")
    other = torch.load(tmp_path / "copy.pt", weights_only=True)["other"]
    assert identical(other, tree["other"])


def test_parameters_stay_parameters(tmp_path):
    frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    tree = {"a": torch.nn.Parameter(torch.ones(2)), "b": frozen, "c": torch.ones(2)}
    save_zip(tree, tmp_path / "model.pt")
    checkpoint = replace(read(tmp_path / "model.pt"), {name: torch.zeros(2) for name in tree})
    write(checkpoint, tmp_path / "clean.pt")
    loaded = torch.load(tmp_path / "clean.pt", weights_only=True)
    for name, old in tree.items():
        assert type(loaded[name]) is type(old)
        assert loaded[name].requires_grad == old.requires_grad
        assert torch.equal(loaded[name], torch.zeros(2))


@EVERY_CONTAINER
def test_the_same_content_gives_the_same_bytes_under_any_name(container, tmp_path):
    source = tmp_path / "model.pt"
    tree = weights() if container == "safetensors" else TREE
    SAVERS[container](tree, source)
    kept = []  # keeps the first round's memory in use, so that addresses differ in the second
    for name in ("one.pt", "another name.bin"):
        checkpoint = replace(read(source), weights(5))
        kept.append(checkpoint)
        write(checkpoint, tmp_path / name)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "another name.bin").read_bytes()
    write(read(tmp_path / "one.pt"), tmp_path / "third.pt")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "third.pt").read_bytes()


def test_the_same_bytes_in_another_process(tmp_path):
    script = """
import sys
from pathlib import Path
from sslpurify.checkpoint import read, write
for path in map(Path, sys.argv[1:]):
    print(write(read(path), path.with_suffix(".again")))
"""
    paths = [tmp_path / f"{container}.pt" for container in SAVERS]
    save_file(
        dict(weights()), paths[0], metadata={str(number): "some text" for number in range(30)}
    )
    save_zip(TREE, paths[1])
    save_legacy(TREE, paths[2])
    done = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True
    )
    here = [write(read(path), path.with_suffix(".here")) for path in paths]
    assert done.stdout.split() == here


@EVERY_CONTAINER
def test_an_untouched_file_is_written_byte_for_byte(container, tmp_path):
    SAVERS[container](weights(), tmp_path / "model.pt")
    checkpoint = read(tmp_path / "model.pt")
    assert write(checkpoint, tmp_path / "copy.pt") == checkpoint.sha256
    changed = write(replace(checkpoint, weights(1)), tmp_path / "changed.pt")
    back = replace(read(tmp_path / "changed.pt"), weights())
    assert write(back, tmp_path / "back.pt") == checkpoint.sha256 != changed


def test_a_published_file_is_written_byte_for_byte(tmp_path):
    from tests.checkpoint.test_read import SHARED

    path = SHARED / "data" / "simclr_resnet18_cifar10.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    checkpoint = read(path)
    assert write(checkpoint, tmp_path / "copy.safetensors") == checkpoint.sha256


def test_safetensors_keep_order_padding_and_metadata(tmp_path):
    entries = {
        name: {"dtype": "U8", "shape": [2], "data_offsets": [2 * place, 2 * place + 2]}
        for name, place in (("z", 1), ("a", 2), ("m", 0))
    }
    header = (
        json.dumps({"m": entries["m"]} | entries | {"__metadata__": {"k": "é\n\"<'"}}).encode()
        + b"   "
    )
    content = len(header).to_bytes(8, "little") + header + b"mmzzaa"
    (tmp_path / "s").write_bytes(content)
    checkpoint = read(tmp_path / "s")
    assert list(checkpoint.tensors) == ["m", "z", "a"]
    assert checkpoint.metadata == {"k": "é\n\"<'"}
    new = {"z": torch.tensor([1, 2], dtype=torch.uint8)}
    write(replace(checkpoint, new), tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == content.replace(b"zz", b"\1\2")
    assert torch.equal(load_file(tmp_path / "t")["z"], new["z"])


@pytest.mark.parametrize("save", [save_zip, save_legacy])
def test_views_and_shared_storages_survive(save, tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {"whole": base, "same": base, "view": base.t()[1:], "empty": torch.zeros(0, 3)}
    save(state, tmp_path / "model.pt")
    checkpoint = read(tmp_path / "model.pt")
    huge = torch.zeros(1_000_000)
    new = replace(checkpoint, {"view": huge[:9].reshape(3, 3)})
    expected = torch.tensor([[0.0, 0, 0, 0], [4, 0, 0, 0], [8, 0, 0, 0]])
    write(new, tmp_path / "new.pt")
    assert (tmp_path / "new.pt").stat().st_size == (tmp_path / "model.pt").stat().st_size
    for again in (new.tensors, read(tmp_path / "new.pt").tensors):
        assert torch.equal(again["whole"], expected)
        assert again["whole"].data_ptr() == again["same"].data_ptr()
        assert torch.equal(again["view"], torch.zeros(3, 3))
    assert all(identical(checkpoint.tensors[name], state[name]) for name in state)
    loaded = torch.load(tmp_path / "new.pt", weights_only=True)
    assert torch.equal(loaded["same"], expected)
    replace(checkpoint, {"whole": base + 1, "same": base + 1})
    with pytest.raises(CheckpointError, match="'whole': shares memory with other tensors"):
        replace(checkpoint, {"whole": base + 1, "same": base + 2})


def test_a_file_that_is_gone_or_replaced_still_comes_back(tmp_path):
    path = tmp_path / "model.pt"
    save_zip(weights(), path)
    content, checkpoint = path.read_bytes(), read(path)
    path.rename(tmp_path / "elsewhere")
    path.write_text("another")
    write(checkpoint, tmp_path / "copy.pt")
    assert (tmp_path / "copy.pt").read_bytes() == content
    (tmp_path / "elsewhere").unlink()
    write(checkpoint, tmp_path / "copy.pt")
    assert (tmp_path / "copy.pt").read_bytes() == content


def test_a_file_that_changed_since_is_not_written_back(tmp_path):
    path = tmp_path / "model.pt"
    save_zip(weights(), path)
    checkpoint = read(path)
    with path.open("r+b") as file:
        file.write(b"x")
    with pytest.raises(TrainingError, match="changed on the disk"):
        write(checkpoint, tmp_path / "copy.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_checkpoint_of_no_file_is_written_as_safetensors(tmp_path):
    tensors = {"w": torch.arange(6.0).reshape(2, 3).t(), "n": torch.tensor(3)}
    write(new(tensors), tmp_path / "new")
    again = read(tmp_path / "new")
    assert again.metadata == {"format": "pt"}
    assert list(again.tensors) == ["w", "n"]
    assert all(
        torch.equal(value, tensors[key]) for key, value in load_file(tmp_path / "new").items()
    )


@EVERY_CONTAINER
def test_the_layout_in_memory_does_not_show_in_the_file(container, tmp_path):
    SAVERS[container](weights(), tmp_path / "model.pt")
    checkpoint, values = read(tmp_path / "model.pt"), weights(1)["conv1.weight"]
    for name, order in (("a", torch.contiguous_format), ("b", torch.channels_last)):
        new = {"conv1.weight": values.contiguous(memory_format=order)}
        write(replace(checkpoint, new), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_safetensors_take_views(tmp_path):
    save_file({"a": torch.zeros(4, 3), "b": torch.zeros(3)}, tmp_path / "model")
    base = torch.arange(12.0).reshape(3, 4)
    new = {"a": base.t(), "b": base[:, 0]}
    write(replace(read(tmp_path / "model"), new), tmp_path / "new")
    assert all(torch.equal(value, new[key]) for key, value in load_file(tmp_path / "new").items())


def test_only_what_the_file_holds_can_be_replaced(tmp_path):
    save_zip(weights(0, torch.float16), tmp_path / "model.pt")
    checkpoint = read(tmp_path / "model.pt")
    for wrong, message in (
        ({"fc.weight": torch.ones(1)}, "holds no 'fc.weight'"),
        ({"bn1.weight": torch.ones(5)}, r"'bn1.weight' is \(4,\) in the file, not \(5,\)"),
        ({"bn1.weight": torch.full((4,), 1e6)}, "'bn1.weight'.*not finite in torch.float16"),
    ):
        with pytest.raises(CheckpointError, match=message):
            replace(checkpoint, wrong)


@EVERY_CONTAINER
def test_the_source_is_never_overwritten(container, tmp_path):
    source = tmp_path / "model.pt"
    SAVERS[container](weights(), source)
    content = source.read_bytes()
    (tmp_path / "link.pt").symlink_to(source)
    os.link(source, tmp_path / "hard.pt")
    checkpoint = replace(read(source), weights(1))
    for path in (source, tmp_path / "." / "model.pt", tmp_path / "link.pt", tmp_path / "hard.pt"):
        with pytest.raises(ConfigError, match="never overwritten"):
            write(checkpoint, path)
    assert source.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_already_there_is_replaced_and_permissions_are_usual(tmp_path):
    save_zip(weights(), tmp_path / "model.pt")
    (tmp_path / "out.pt").write_text("old")
    (tmp_path / "plain").touch()
    write(read(tmp_path / "model.pt"), tmp_path / "out.pt")
    assert read(tmp_path / "out.pt").container == "torch-zip"
    assert (tmp_path / "out.pt").stat().st_mode == (tmp_path / "plain").stat().st_mode


@EVERY_CONTAINER
def test_nothing_is_left_when_the_name_cannot_be_taken(container, tmp_path):
    out = tmp_path / "out"
    (out / "taken").mkdir(parents=True)
    SAVERS[container](weights(), tmp_path / "model.pt")
    checkpoint = read(tmp_path / "model.pt")
    with pytest.raises(TrainingError, match="taken: cannot be written: Is a directory"):
        write(checkpoint, out / "taken")
    with pytest.raises(TrainingError, match="No such file or directory"):
        write(checkpoint, out / "missing" / "model.pt")
    with pytest.raises(TrainingError, match="Not a directory"):
        write(checkpoint, tmp_path / "model.pt" / "inside")
    assert [path.name for path in out.iterdir()] == ["taken"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_leaves_nothing_and_keeps_what_was_there(tmp_path):
    script = """
import resource, sys
from pathlib import Path
from sslpurify.checkpoint import read, write
from sslpurify.errors import TrainingError
checkpoints = [read(Path(path)) for path in sys.argv[2:]]
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for checkpoint in checkpoints:
    try:
        write(checkpoint, Path(sys.argv[1]))
    except TrainingError as error:
        print("full")
"""
    paths = [tmp_path / f"{container}.pt" for container in SAVERS]
    for path, save in zip(paths, SAVERS.values(), strict=True):
        save({"w": torch.rand(5000)}, path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.pt").write_text("as it was")
    done = subprocess.run(
        [sys.executable, "-c", script, out / "model.pt", *paths],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["full"] * 3
    assert [path.name for path in out.iterdir()] == ["model.pt"]
    assert (out / "model.pt").read_text() == "as it was"


def test_what_does_not_read_back_equal_is_never_put_in_place(tmp_path, monkeypatch):
    save_zip(weights(), tmp_path / "model.pt")
    checkpoint = replace(read(tmp_path / "model.pt"), weights(1))
    monkeypatch.setattr(sys.modules["sslpurify.checkpoint.write"], "_put", lambda *_: None)
    with pytest.raises(TrainingError, match="differently"):
        write(checkpoint, tmp_path / "out.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch):
    save_zip(weights(), tmp_path / "model.pt")
    checkpoint = read(tmp_path / "model.pt")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["sslpurify.checkpoint.write"], "_put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(checkpoint, tmp_path / "out.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_old_torch_reads_what_is_written_in_its_format(tmp_path):
    save_legacy(weights(), tmp_path / "model.pt")
    write(read(tmp_path / "model.pt"), tmp_path / "copy.pt")
    shutil.copy(tmp_path / "copy.pt", tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(identical(loaded[name], weights()[name]) for name in weights())
    assert Path(tmp_path / "copy.pt").read_bytes()[:2] == b"\x80\x02"
