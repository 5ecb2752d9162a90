import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from sslpurify.checkpoint import read
from sslpurify.errors import CheckpointError, UnsafeInputError
from sslpurify.statedict import identical
from tests.checkpoint.files import SAVERS, save_legacy, save_zip, weights

SHARED = Path(os.environ.get("SSLPURIFY_SHARED", Path(__file__).parents[3] / "shared"))
BOTH_TORCH = pytest.mark.parametrize("save", [save_zip, save_legacy])


def equal(a: Any, b: Any) -> bool:
    return list(a) == list(b) and all(identical(a[name], b[name]) for name in a)


def safetensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
@pytest.mark.parametrize("container", SAVERS)
def test_the_container_is_found_by_content(container, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    SAVERS[container](weights(), path)
    content, age = path.read_bytes(), path.stat().st_mtime_ns
    checkpoint = read(path)
    assert checkpoint.container == container
    assert checkpoint.path == path
    assert checkpoint.sha256 == hashlib.sha256(content).hexdigest()
    assert checkpoint.wrapper == checkpoint.siblings == ()
    assert checkpoint.metadata == ({"format": "pt"} if container == "safetensors" else {})
    assert checkpoint.tensors.keys() == weights().keys()
    assert all(identical(checkpoint.tensors[name], weights()[name]) for name in weights())
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, age)


@BOTH_TORCH
@pytest.mark.parametrize(
    "wrapper",
    [
        *(("state_dict",), ("model",), ("state_dict_ema",), ("model_state_dict",), ("module",)),
        *(("model", "state_dict"), ("checkpoint", "model", "net"), ("anything",)),
    ],
)
def test_wrappers_are_unwrapped(wrapper, save, tmp_path):
    tree: Any = weights()
    for name in reversed(wrapper):
        tree = {"epoch": 3, name: tree, "rng_state": torch.zeros(5, dtype=torch.uint8)}
    save(tree, tmp_path / "model.pt")
    checkpoint = read(tmp_path / "model.pt")
    assert checkpoint.wrapper == wrapper
    assert equal(checkpoint.tensors, weights())


def test_the_optimizer_is_not_taken_for_the_model_and_copies_are_told(tmp_path):
    tree = {
        "optimizer": {"momentum": weights(1) | weights(2), "state": {0: {"m": torch.zeros(2)}}},
        "state_dict_ema": weights(3),
        "state_dict": weights(0),
        "scheduler": {"last": 1},
    }
    save_zip(tree, tmp_path / "model.pt")
    checkpoint = read(tmp_path / "model.pt")
    assert checkpoint.wrapper == ("state_dict",)
    assert checkpoint.siblings == ("state_dict_ema",)


def test_entries_that_are_no_tensors_are_left_out(tmp_path):
    save_zip(weights() | {"_extra_state": None, "step": 5}, tmp_path / "model.pt")
    assert equal(read(tmp_path / "model.pt").tensors, weights())


def test_parameters_are_read_as_plain_tensors(tmp_path):
    save_zip({"w": torch.nn.Parameter(torch.ones(2))}, tmp_path / "model.pt")
    tensor = read(tmp_path / "model.pt").tensors["w"]
    assert type(tensor) is torch.Tensor
    assert not tensor.requires_grad


def tar(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def zipped(*names: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name in names:
            archive.writestr(name, b"x" * 5000)
    return buffer.getvalue()


OTHER_FILES = {
    "empty": (b"", CheckpointError, "is empty"),
    "web page": (b"\n<!DOCTYPE html><html>Sign in</html>", CheckpointError, "web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", CheckpointError, "git lfs pull"),
    "json": (b'{"error": "not found"}', CheckpointError, "JSON or text"),
    "json with a brace in ninth place": (b'{"data":{"a": 1}}', CheckpointError, "JSON or text"),
    "gzip": (b"\x1f\x8b\x08\x00", CheckpointError, "gzip"),
    "numpy": (b"\x93NUMPY\x01\x00", CheckpointError, "numpy"),
    "png": (b"\x89PNG\r\n", CheckpointError, "PNG"),
    "noise": (b"\xff\xfe\x00\x01 nothing at all", CheckpointError, "not a checkpoint"),
    "pickle": (b"\x80\x02}q\x00.", CheckpointError, "plain pickle"),
    "tar": (tar("storages"), UnsafeInputError, "tar archive"),
    "torchscript": (zipped("m/data.pkl", "m/constants.pkl"), UnsafeInputError, "TorchScript"),
    "torchscript code": (zipped("m/code/a.py"), UnsafeInputError, "TorchScript"),
    "pt2": (zipped("m/archive_format", "m/models/model.json"), UnsafeInputError, "PT2"),
    "another zip": (zipped("photos/1.jpg"), CheckpointError, "photos/1.jpg"),
    "empty zip": (zipped(), CheckpointError, "empty zip"),
    "header beyond the end": (safetensors({"a": 1})[:12], CheckpointError, "truncated"),
    "header not JSON": (safetensors(b'{"a": '), CheckpointError, "damaged"),
    "header without tensors": (safetensors({}), CheckpointError, "no tensors"),
    "nested header": (safetensors(b'{"a":' * 100_000), UnsafeInputError, "32 levels"),
    "data missing": (
        safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"),
        CheckpointError,
        "truncated",
    ),
    "shape does not fit": (
        safetensors({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"12345678"),
        CheckpointError,
        "damaged",
    ),
    "key twice": (
        safetensors(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
            b"12",
        ),
        CheckpointError,
        "'a' twice",
    ),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_other_files_are_called_by_their_name(name, tmp_path):
    content, error, message = OTHER_FILES[name]
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(error, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("container", SAVERS)
def test_a_truncated_file_is_an_error_wherever_it_ends(container, tmp_path):
    path = tmp_path / "model.pt"
    SAVERS[container](weights(), path)
    content = path.read_bytes()
    for length in range(1, len(content), len(content) // 17):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read(path)


def test_files_that_cannot_be_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"x")
    paths = {
        tmp_path / "missing.pt": "No such file",
        tmp_path: "a folder",
        tmp_path / "pipe": "not a regular file",
        tmp_path / "file" / "inside": "Not a directory",
        tmp_path / "nul\0": "not a file name",
    }
    for path, message in paths.items():
        with pytest.raises(CheckpointError, match=message):
            read(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    path = tmp_path / "secret.pt"
    path.touch(mode=0)
    with pytest.raises(CheckpointError, match="Permission denied"):
        read(path)


def test_a_header_that_would_exhaust_memory(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write((20 * 1024**2).to_bytes(8, "little") + b"{")
        file.truncate(30 * 1024**2)
    with pytest.raises(UnsafeInputError, match="header"):
        read(path)


@BOTH_TORCH
def test_expanded_tensors_are_refused(save, tmp_path):
    path = tmp_path / "model.pt"
    save({"state_dict": {"conv.weight": torch.zeros(1).expand(50_000, 50_000)}}, path)
    assert path.stat().st_size < 10_000
    with pytest.raises(UnsafeInputError, match=r"'state_dict.conv.weight' declares 10,000,000,000"):
        read(path)


@BOTH_TORCH
def test_one_storage_under_many_names_is_refused(save, tmp_path):
    shared = torch.zeros(10_000)
    save({f"w{number}": shared for number in range(100)}, tmp_path / "model.pt")
    with pytest.raises(UnsafeInputError, match="exhaust memory"):
        read(tmp_path / "model.pt")


def test_tied_weights_are_welcome(tmp_path):
    tied = torch.ones(1000)
    save_zip({"a": tied, "b": tied, "c": tied[:500]}, tmp_path / "model.pt")
    assert equal(read(tmp_path / "model.pt").tensors, {"a": tied, "b": tied, "c": tied[:500]})


def test_compressed_members_are_refused(tmp_path):
    save_zip(weights(), tmp_path / "model.pt")
    with (
        zipfile.ZipFile(tmp_path / "model.pt") as source,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in source.namelist():
            packed.writestr(name, source.read(name))
    with pytest.raises(UnsafeInputError, match="torch never packs weights"):
        read(tmp_path / "packed.pt")


def test_archives_of_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sslpurify.checkpoint.archive._MAX_MEMBERS", 5)
    save_zip(weights(), tmp_path / "model.pt")
    with pytest.raises(UnsafeInputError, match="members"):
        read(tmp_path / "model.pt")


@pytest.mark.parametrize("member", ["model/data.pkl", "model/data/0"])
def test_two_members_of_one_name_are_refused(member, tmp_path):
    save_zip(weights(), tmp_path / "model.pt")
    with (
        zipfile.ZipFile(tmp_path / "model.pt", "a") as archive,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        archive.writestr(member, archive.read(member))
    with pytest.raises(CheckpointError, match="two members"):
        read(tmp_path / "model.pt")


def test_pickles_of_too_many_operations_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sslpurify.checkpoint.pickles._MAX_OPCODES", 50)
    save_zip(weights(), tmp_path / "model.pt")
    with pytest.raises(UnsafeInputError, match="operations"):
        read(tmp_path / "model.pt")


def test_deep_nesting_is_refused(tmp_path):
    tree: Any = {"w": torch.ones(1)}
    for _ in range(100):
        tree = {"inner": tree}
    save_zip(tree, tmp_path / "model.pt")
    with pytest.raises(UnsafeInputError, match="levels deep"):
        read(tmp_path / "model.pt")


def test_a_tree_that_contains_itself_is_read_once(tmp_path):
    tree: dict[str, Any] = {"state_dict": weights()}
    tree["self"] = tree
    save_zip(tree, tmp_path / "model.pt")
    assert equal(read(tmp_path / "model.pt").tensors, weights())


def test_mappings_that_hold_one_another_many_times_over_are_refused(tmp_path):
    tree: Any = {str(number): torch.ones(()) for number in range(800)}
    for _ in range(2):
        tree = {str(number): tree for number in range(800)}
    save_zip(tree, tmp_path / "model.pt")
    with pytest.raises(UnsafeInputError, match="entries in all"):
        read(tmp_path / "model.pt")


def test_attributes_of_mappings_are_never_looked_at(tmp_path):
    state = weights()
    state.__dict__["setdefault"] = 5
    save_zip({"model": state}, tmp_path / "model.pt")
    assert equal(read(tmp_path / "model.pt").tensors, weights())


def broken(name: str, value: float) -> OrderedDict[str, torch.Tensor]:
    state = weights()
    state[name].view(-1)[1] = value
    return state


BAD_WEIGHTS = {
    "nan": (broken("conv1.weight", float("nan")), "'conv1.weight': 1 of 108 values are NaN"),
    "infinity": (broken("bn1.weight", float("inf")), "'bn1.weight': 1 of 4 values"),
    "negative variance": (broken("bn1.running_var", -1e-3), "'bn1.running_var': 1 variances"),
    "meta": ({"a.w": torch.zeros(2, device="meta"), "b": torch.ones(1)}, "'a.w'.*meta"),
    "sparse": ({"a.w": torch.eye(3).to_sparse()}, "'a.w'.*sparse"),
    "complex": ({"a.w": torch.zeros(2, dtype=torch.complex64)}, "'a.w'.*complex64"),
    "8 bit": ({"a.w": torch.zeros(2).to(torch.float8_e4m3fn)}, "'a.w'.*float8"),
    "integer key": ({0: torch.zeros(2), "a": torch.zeros(2)}, r"0 \(int\)"),
    "tuple key": ({(1, "a"): torch.zeros(2)}, r"\(tuple\)"),
}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_weights_that_cannot_be_weights_are_refused_by_name(name, wrapped, tmp_path):
    state, message = BAD_WEIGHTS[name]
    save_zip({"model": state} if wrapped else state, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "model.pt")


def test_quantized_tensors_are_refused_by_name(tmp_path, recwarn):
    state = {"a.w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}
    save_zip(state, tmp_path / "model.pt")
    recwarn.clear()
    with pytest.raises(CheckpointError, match=r"'a.w'.*qint8"):
        read(tmp_path / "model.pt")


def test_odd_tensors_elsewhere_do_no_harm(tmp_path):
    tree = {
        "state_dict": weights(),
        "meta": torch.zeros(9, device="meta"),
        "sparse": torch.eye(3).to_sparse(),
        "loss": torch.tensor(float("nan")),
        "history": {1: [torch.zeros(1, dtype=torch.complex64), float("inf"), {1, 2}, None, 1j]},
    }
    save_zip(tree, tmp_path / "model.pt")
    assert equal(read(tmp_path / "model.pt").tensors, weights())


@pytest.mark.parametrize("tree", [[weights()], {"epoch": 3}, {"state_dict": {}}, torch.ones(3), {}])
def test_files_without_a_state_dict(tree, tmp_path):
    save_zip(tree, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="no state dict"):
        read(tmp_path / "model.pt")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_read(protocol, tmp_path):
    tree = {"state_dict": weights(), "odd": {1, 2}, "more": [b"x", frozenset("a"), 2**40, (1,)]}
    torch.save(tree, tmp_path / "model.pt", pickle_protocol=protocol)
    assert equal(read(tmp_path / "model.pt").tensors, weights())


def test_whole_modules_are_code(tmp_path):
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "model.pt")
    with pytest.raises(UnsafeInputError, match=r"torch.nn.modules.linear.Linear.*state dict"):
        read(tmp_path / "model.pt")


def test_the_published_encoder_loads():
    path = SHARED / "data" / "simclr_resnet18_cifar10.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    facts = json.loads(path.with_suffix(".json").read_text())
    checkpoint = read(path)
    assert checkpoint.sha256 == facts["sha256"]
    assert len(checkpoint.tensors) == 128
    assert checkpoint.metadata == {"format": "pt"}
