"""Folders of Hugging Face and open_clip."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sslpurify.checkpoint import read, replace, write
from sslpurify.errors import CheckpointError, ConfigError, TrainingError, UnsafeInputError
from sslpurify.statedict import identical
from tests.checkpoint.files import save_safetensors, save_zip, weights

SAVERS: dict[str, Callable[[Any, Path], None]] = {
    "model.safetensors": save_safetensors,
    "pytorch_model.bin": save_zip,
    "open_clip_model.safetensors": save_safetensors,
    "open_clip_pytorch_model.bin": save_zip,
}
SMALL = {
    "config.json": b'{"model_type": "clip", "hidden_size": 4}\n',
    "open_clip_config.json": b'{"model_cfg": {"embed_dim": 4}}',
    "preprocessor_config.json": b'{\r\n "size": 8 }',
    "merges.txt": "h\u00e9 llo\n".encode(),
    "vocab.json": b'{"a": 0, "a": 1}',
    "README.md": b"# model",
    "LICENSE": b"",
}


def shard(name: str, number: int, count: int = 2) -> str:
    stem, _, suffix = name.rpartition(".")
    return f"{stem}-{number:05}-of-{count:05}.{suffix}"


def make(folder: Path, name: str = "model.safetensors", *, sharded: bool = False) -> Path:
    """A folder with weights in one file or two, and the small files."""
    folder.mkdir()
    for file, content in SMALL.items():
        (folder / file).write_bytes(content)
    if not sharded:
        SAVERS[name](weights(), folder / name)
        return folder
    items = list(weights().items())
    parts = {shard(name, 1): items[2:], shard(name, 2): items[:2]}
    for file, part in parts.items():
        SAVERS[name](dict(part), folder / file)
    weight_map = {key: file for file, part in parts.items() for key, _ in part}
    write_index(folder / f"{name}.index.json", weight_map)
    return folder


def write_index(path: Path, weight_map: Any) -> None:
    path.write_text(json.dumps({"metadata": {"total_size": 4}, "weight_map": weight_map}))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", SAVERS)
def test_a_folder_comes_back_as_it_was(name, sharded, tmp_path):
    source = make(tmp_path / "source", name, sharded=sharded)
    before = contents(source)
    checkpoint = read(source)
    assert checkpoint.path == source
    assert checkpoint.container == ("safetensors" if "safetensors" in name else "torch-zip")
    assert checkpoint.tensors.keys() == weights().keys()
    assert all(identical(checkpoint.tensors[key], weights()[key]) for key in weights())
    config = "open_clip_config.json" if name.startswith("open_clip") else "config.json"
    assert checkpoint.config == json.loads(SMALL[config])
    assert checkpoint.left_out == ()
    sha256 = write(checkpoint, tmp_path / "copy")
    assert sha256 == checkpoint.sha256
    assert contents(tmp_path / "copy") == before
    changed = replace(checkpoint, weights(1))
    sha256 = write(changed, tmp_path / "changed")
    again = read(tmp_path / "changed")
    assert sha256 == again.sha256 != checkpoint.sha256
    assert all(identical(again.tensors[key], value) for key, value in weights(1).items())
    assert [list(part.tensors) for part in again.parts] == [
        list(part.tensors) for part in checkpoint.parts
    ]
    write(changed, tmp_path / "changed too")
    assert contents(tmp_path / "changed") == contents(tmp_path / "changed too")
    assert contents(source) == before
    assert all(contents(tmp_path / "changed")[file] == content for file, content in SMALL.items())
    assert len(list(tmp_path.iterdir())) == 4


def test_the_hash_is_that_of_the_line_that_sha256sum_prints(tmp_path):
    source = make(tmp_path / "source", sharded=True)
    lines = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(source.glob("*.safetensors"))
    )
    assert read(source).sha256 == hashlib.sha256(lines.encode()).hexdigest()


def test_the_single_file_wins_over_shards_and_safetensors_over_pickles(tmp_path):
    source = make(tmp_path / "source", sharded=True)
    save_zip(weights(3), source / "pytorch_model.bin")
    save_safetensors(weights(4), source / "model.safetensors")
    checkpoint = read(source)
    assert torch.equal(checkpoint.tensors["bn1.weight"], weights(4)["bn1.weight"])
    left_out = " ".join(checkpoint.left_out)
    for name in ("pytorch_model.bin", shard("model.safetensors", 1), "model.safetensors.index"):
        assert name in left_out
    write(checkpoint, tmp_path / "copy")
    assert contents(tmp_path / "copy").keys() == {*SMALL, "model.safetensors"}


def test_what_is_code_weights_or_unsafe_stays_behind(tmp_path):
    source = make(tmp_path / "source")
    (tmp_path / "secret.txt").write_text("secret")
    (source / "modeling.py").write_text("raise SystemExit")
    (source / "flax_model.msgpack").write_text("x")
    (source / "notes.txt").write_bytes(b"\x80\x02}q\x00.")
    (source / "onnx").mkdir()
    (source / "out.txt").symlink_to(tmp_path / "secret.txt")
    (source / "in.txt").symlink_to("README.md")
    (source / "nowhere.txt").symlink_to("missing")
    os.mkfifo(source / "pipe.txt")
    checkpoint = read(source)
    assert checkpoint.left_out == (
        "'flax_model.msgpack': other weights, which were not read",
        "'modeling.py': code, which is never read",
        "'notes.txt': a pickle or an archive",
        "'nowhere.txt': a link to nothing",
        "'onnx': a folder",
        "'out.txt': a link that leaves the folder",
        "'pipe.txt': not a regular file",
    )
    write(checkpoint, tmp_path / "copy")
    assert contents(tmp_path / "copy").keys() == {*SMALL, "model.safetensors", "in.txt"}
    assert not (tmp_path / "copy" / "in.txt").is_symlink()


@pytest.mark.parametrize("size", ["_MAX_CARRIED", "_MAX_CARRIED_IN_ALL"])
def test_large_files_stay_behind(size, tmp_path, monkeypatch):
    source = make(tmp_path / "source")
    (source / "zeros.txt").write_bytes(bytes(5000))
    monkeypatch.setattr(f"sslpurify.checkpoint.folder.{size}", 4000)
    (left_out,) = read(source).left_out
    assert left_out.startswith("'zeros.txt': too large")


def test_folders_without_configuration_are_read(tmp_path):
    source = make(tmp_path / "source")
    for name in SMALL:
        (source / name).unlink()
    assert read(source).config is None


@pytest.mark.parametrize(
    "config",
    [
        {"auto_map": {"AutoModel": "modeling.Evil"}},
        {"vision_config": {"layers": [{"auto_map": {"AutoModel": "someone/else--m.Evil"}}]}},
        {"trust_remote_code": True},
        {"custom_pipelines": {"x": {"impl": "evil.Evil"}}},
    ],
)
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_configurations_that_ask_for_code_are_refused(config, name, tmp_path):
    source = make(tmp_path / "source")
    (source / name).write_text(json.dumps(config))
    with pytest.raises(UnsafeInputError, match=rf"source: {name} asks with '\w+' to run code"):
        read(source)


BAD_CONFIGS = {
    "twice": (b'{"a": 1, "b": {"x": 1, "x": 2}}', CheckpointError, "'x' twice"),
    "no object": (b"[1]", CheckpointError, "no JSON object, but a list"),
    "cut off": (b'{"a": ', CheckpointError, "not valid JSON"),
    "not UTF-8": (b'{"a": "\xff"}', CheckpointError, "not valid JSON"),
    "not a number": (b'{"a": NaN}', CheckpointError, "NaN is no number"),
    "endless number": (b'{"a": ' + b"9" * 10_000 + b"}", CheckpointError, "not valid JSON"),
    "deep": (b'{"a":' * 50 + b"1" + b"}" * 50, UnsafeInputError, "32 levels"),
    "very deep": (b'{"a":' * 100_000, UnsafeInputError, "32 levels"),
    "long": (b"{}" + b" " * 2**20, UnsafeInputError, "larger than 1,048,576"),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_configurations_are_strict_json(name, tmp_path):
    content, error, message = BAD_CONFIGS[name]
    source = make(tmp_path / "source")
    (source / "config.json").write_bytes(content)
    with pytest.raises(error, match=f"source: config.json .*{message}") as caught:
        read(source)
    assert "\n" not in str(caught.value)


ONE, TWO = shard("model.safetensors", 1), shard("model.safetensors", 2)
OTHERS = {"bn1.running_var": ONE, "bn1.num_batches_tracked": ONE, "bn1.weight": TWO}


@pytest.mark.parametrize(
    "file",
    [
        *("../outside.safetensors", "ABSOLUTE", "..", ".", "", "sub/x.safetensors"),
        *("..\\outside.safetensors", "a\0b", "a\nb", "C:x", "link.safetensors"),
    ],
)
def test_an_index_never_leads_out_of_the_folder(file, tmp_path):
    source = make(tmp_path / "source", sharded=True)
    save_safetensors({"conv1.weight": torch.ones(4)}, tmp_path / "outside.safetensors")
    (source / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    file = file.replace("ABSOLUTE", str(tmp_path / "outside.safetensors"))
    write_index(source / "model.safetensors.index.json", OTHERS | {"conv1.weight": file})
    with pytest.raises(UnsafeInputError, match=r"from the folder itself|leaves the folder"):
        read(source)


@pytest.mark.parametrize("linked", ["model.safetensors", "model.safetensors.index.json"])
def test_links_out_of_the_folder_are_refused(linked, tmp_path):
    source = make(tmp_path / "source", sharded="index" in linked)
    (source / linked).rename(tmp_path / "outside")
    (source / linked).symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafeInputError, match=r"leaves the folder.*cp -rL"):
        read(source)


WRONG_INDEXES = {
    "no map": ([], CheckpointError, "no weight_map"),
    "no text": (OTHERS | {"conv1.weight": 1}, CheckpointError, "is no text"),
    "missing file": (OTHERS | {"conv1.weight": "no.bin"}, CheckpointError, "'no.bin' is missing"),
    "missing tensor": (
        OTHERS | {"conv1.weight": TWO, "fc.weight": TWO},
        CheckpointError,
        "in none of its files: 'fc.weight'",
    ),
    "another file": (
        OTHERS | {"conv1.weight": ONE},
        CheckpointError,
        "another file than the one that holds them: 'conv1.weight'",
    ),
    "not listed": (OTHERS, CheckpointError, "does not list: 'conv1.weight'"),
}


@pytest.mark.parametrize("name", WRONG_INDEXES)
def test_an_index_that_does_not_fit_is_refused(name, tmp_path):
    weight_map, error, message = WRONG_INDEXES[name]
    source = make(tmp_path / "source", sharded=True)
    write_index(source / "model.safetensors.index.json", weight_map)
    with pytest.raises(error, match=message):
        read(source)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    source = make(tmp_path / "source", sharded=True)
    save_file(dict(list(weights().items())[:3]), source / TWO)
    with pytest.raises(CheckpointError, match=r"'bn1.running_var': in two files, .*disagree"):
        read(source)


def test_other_folders_are_told_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"a folder without model\.safetensors"):
        read(tmp_path)
    (tmp_path / ".metadata").touch()
    with pytest.raises(CheckpointError, match="distributed checkpoints"):
        read(tmp_path)


def test_folders_of_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sslpurify.checkpoint.folder._MAX_FILES", 3)
    with pytest.raises(UnsafeInputError, match="more than 3 files"):
        read(make(tmp_path / "source"))


def test_the_source_and_what_is_there_are_never_overwritten(tmp_path):
    source = make(tmp_path / "source")
    before = contents(source)
    (tmp_path / "link").symlink_to(source)
    checkpoint = read(source)
    for path in (source, tmp_path / "link", source / "inside", tmp_path / "link" / "inside"):
        with pytest.raises(ConfigError, match="never"):
            write(checkpoint, path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(TrainingError, match="taken: cannot be written"):
        write(checkpoint, tmp_path / "taken")
    assert contents(source) == before
    assert {path.name for path in tmp_path.iterdir()} == {"source", "link", "taken"}


def test_what_does_not_read_back_equal_is_never_put_in_place(tmp_path):
    checkpoint = read(make(tmp_path / "source"))
    lost = dataclasses.replace(checkpoint, carried={**checkpoint.carried, "x.py": b""})
    with pytest.raises(TrainingError, match="differently"):
        write(lost, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
