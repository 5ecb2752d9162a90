"""Files that would run code, leave their folder or exhaust memory, made when a test runs.

Every payload would leave a canary file. What makes one is kept here, beside what the refusal must
name.
"""

import functools
import io
import json
import os
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.checkpoint.files import Call, legacy_around, programs, weights, zip_around

CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "zip": zip_around,
    "legacy": legacy_around,
}
CALLED = (
    *("posix.system", "nt.system", "os.popen", "subprocess.Popen", "builtins.eval"),
    *("builtins.exec", "builtins.getattr", "builtins.__import__", "__builtin__.apply"),
    *("operator.methodcaller", "runpy.run_path", "pty.spawn", "timeit.timeit", "pdb.run"),
    *(
        "importlib.import_module",
        "ctypes.CDLL",
        "webbrowser.open",
        "shutil.rmtree",
        "code.interact",
    ),
    *("pickle.loads", "_pickle.loads", "marshal.loads", "types.FunctionType", "functools.reduce"),
    *("torch.load", "torch.jit.load", "torch.hub.load", "torch.serialization.os.system"),
    *("torch.storage._load_from_bytes", "numpy.load", "numpy.f2py.crackfortran.getlincoef"),
    *("joblib.load", "pandas.read_pickle", "dill.loads", "cloudpickle.loads", "mymodel.Evil"),
)
"""Names that other readers were driven through; torch's and numpy's own among them."""


class Calling:
    """Pickles into a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Settings:
    """What people keep in checkpoints beside the weights."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


def calling(name: str, command: str) -> bytes:
    """A pickle that calls a function of this name with one text."""
    module, _, function = name.rpartition(".")
    text = b"X" + len(command).to_bytes(4, "little") + command.encode()
    return b"\x80\x02c" + f"{module}\n{function}\n".encode() + text + b"\x85R."


def dotted(command: str) -> bytes:
    """A pickle of protocol 4 that reaches a function through another module's import."""
    names = b"\x8c\x13torch.serialization\x8c\x09os.system\x93"
    return b"\x80\x04" + names + b"\x8c" + bytes([len(command)]) + command.encode() + b"\x85R."


def built(command: str) -> bytes:
    """A pickle that hangs a function on an object as the method that takes its state."""
    hook = b"X\x0c\x00\x00\x00__setstate__cmymodel\nrun\ns"
    text = b"X" + len(command).to_bytes(4, "little") + command.encode()
    return b"\x80\x02cmymodel\nSettings\n)\x81}" + hook + b"b" + text + b"b."


def beside_weights(payload: Any, path: Path, *, legacy: bool = False) -> Path:
    """A checkpoint that works, with a payload in it."""
    tree = {"state_dict": weights(), "epoch": 3, "callback": payload}
    torch.save(tree, path, _use_new_zipfile_serialization=not legacy)
    return path


def torchscript(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it deprecated
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    return path


def pt2(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/archive_format", b"pt2")
        archive.writestr("m/data.pkl", b"\x80\x02}.")
    return path


def old_tar(path: Path, payload: bytes) -> Path:
    """The format of torch before 0.1.10: a tar archive of pickles."""
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            member = tarfile.TarInfo(name)
            member.size = len(payload)
            archive.addfile(member, io.BytesIO(payload))
    return path


def nested(path: Path, payload: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner/model.pt", zip_around(payload))
    return path


def numpy_objects(path: Path, command: str) -> Path:
    with path.open("wb") as file:
        np.save(file, np.array([Call(command)], dtype=object), allow_pickle=True)
    return path


def numpy_archive(path: Path, command: str) -> Path:
    with path.open("wb") as file:
        np.savez(file, weights=np.array([Call(command)], dtype=object))
    return path


def huggingface(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    save_file(dict(weights()), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", **config}))
    (folder / "modeling_evil.py").write_text(f"open({str(folder.parent / 'canary')!r}, 'w')")
    return folder


def leaving(folder: Path, file: str) -> Path:
    """An index that names a file outside its folder."""
    huggingface(folder)
    save_file({"w": torch.ones(3)}, folder.parent / "outside.safetensors")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"w": file.replace("FOLDER", str(folder.parent))}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def linked(folder: Path) -> Path:
    huggingface(folder)
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / "model.safetensors").symlink_to(folder.parent / "outside.safetensors")
    return folder


def deflated(path: Path) -> Path:
    """A zip of 16 kB that unpacks to 16 MB; it could as well be more."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", b"\x80\x02}.")
        archive.writestr("m/data/0", bytes(2**24))
    return path


def many_members(path: Path) -> Path:
    """A zip that says that it has more members than any checkpoint."""
    path.write_bytes(zip_around(b"\x80\x02}."))
    content = bytearray(path.read_bytes())
    content[-14:-10] = b"\xff" * 4  # their number, on this disk and in all
    path.write_bytes(content)
    return path


def long_header(path: Path) -> Path:
    with path.open("wb") as file:
        file.write((2**25).to_bytes(8, "little") + b"{")
        file.truncate(2**26)
    return path


def saved(tree: Any, path: Path) -> Path:
    torch.save(tree, path)
    return path


def deep(levels: int) -> Any:
    tree: Any = weights()
    for _ in range(levels):
        tree = {"inner": tree}
    return tree


def bomb(path: Path) -> Path:
    """Dictionaries that hold one another: ten to the power of nine entries to walk through."""
    tree: Any = weights()
    for _ in range(3):
        tree = {str(number): tree for number in range(1000)}
    return saved(tree, path)


Maker = Callable[[Path, str], Path]
"""From an empty folder and a shell command that leaves the canary to the path to name."""


def _written(program: bytes, container: str, suffix: str, folder: Path) -> Path:
    path = folder / f"model{suffix}"
    path.write_bytes(CONTAINERS[container](program))
    return path


def _pickles() -> dict[str, tuple[Maker, str]]:
    found: dict[str, tuple[Maker, str]] = {}
    for container in CONTAINERS:
        for kind in programs(""):
            found[f"{kind} in {container}"] = (
                lambda folder, command, c=container, k=kind: _written(
                    programs(command)[k], c, ".safetensors", folder
                ),
                "posix.system",
            )
        for name in CALLED:
            found[f"{name} in {container}"] = (
                lambda folder, command, c=container, n=name: _written(
                    calling(n, command), c, ".pt", folder
                ),
                name,
            )
        for make, named in (
            (dotted, "torch.serialization.os.system"),
            (built, "mymodel.Settings.__setstate__"),
            (lambda _: b"\x80\x02\x82\x7fX\x04\x00\x00\x00true\x85R.", "registry code 127"),
        ):
            found[f"{named} in {container}"] = (
                lambda folder, command, c=container, m=make: _written(m(command), c, ".pt", folder),
                named,
            )
    return found


FILES: dict[str, tuple[Maker, str]] = {
    **_pickles(),
    "beside weights": (lambda f, c: beside_weights(Call(c), f / "m.pt"), "posix.system"),
    "beside weights, legacy": (
        lambda f, c: beside_weights(Call(c), f / "m.pt", legacy=True),
        "posix.system",
    ),
    "in an object": (
        lambda f, c: beside_weights(Settings(run=Settings(now=Call(c))), f / "m.ckpt"),
        "posix.system",
    ),
    "in a partial": (
        lambda f, c: beside_weights(functools.partial(os.system, c), f / "m.pt"),
        "posix.system",
    ),
    "in a numpy array": (
        lambda f, c: beside_weights(np.array([Call(c)], dtype=object), f / "m.pt"),
        "posix.system",
    ),
    "in an array's type": (
        lambda f, c: beside_weights(Calling(np.dtype, Call(c)), f / "m.pt"),
        "posix.system",
    ),
    "in place of a weight": (
        lambda f, c: saved({**weights(), "conv1.weight": Call(c)}, f / "m.pt"),
        "posix.system",
    ),
    "in a weight's hooks": (
        lambda f, c: saved(
            {"w": Calling(torch._utils._rebuild_parameter, torch.ones(2), True, Call(c))},
            f / "m.pt",
        ),
        "posix.system",
    ),
    "a whole module": (
        lambda f, _: saved({"model": torch.nn.Linear(2, 2)}, f / "m.pt"),
        "torch.nn.modules.linear.Linear",
    ),
    "a nested pickle": (
        lambda f, c: saved({"w": Calling(pickle.loads, pickle.dumps(Call(c)))}, f / "m.pt"),
        "pickle.loads",
    ),
    "torchscript": (lambda f, _: torchscript(f / "m.pt"), "TorchScript"),
    "pt2": (lambda f, _: pt2(f / "m.pt2"), "torch.export"),
    "tar": (lambda f, c: old_tar(f / "m.pt", programs(c)["reduce"]), "tar archive"),
    "nested zip": (lambda f, c: nested(f / "m.zip", programs(c)["reduce"]), "inner/model.pt"),
    "numpy objects": (lambda f, c: numpy_objects(f / "m.npy", c), "pickled Python objects"),
    "npz objects": (lambda f, c: numpy_archive(f / "m.pt", c), "numpy arrays"),
    "auto_map": (
        lambda f, _: huggingface(f / "hf", auto_map={"AutoModel": "modeling_evil.Evil"}),
        "modeling_evil.Evil",
    ),
    "remote code": (
        lambda f, _: huggingface(f / "hf", vision_config={"trust_remote_code": True}),
        "trust_remote_code",
    ),
    "index upwards": (lambda f, _: leaving(f / "hf", "../outside.safetensors"), "../outside"),
    "index absolute": (lambda f, _: leaving(f / "hf", "FOLDER/outside.safetensors"), "outside"),
    "link": (lambda f, _: linked(f / "hf"), "link that leaves"),
    "stride 0": (
        lambda f, _: saved({"w": torch.zeros(1).expand(50_000, 50_000)}, f / "m.pt"),
        "declares 10,000,000,000 bytes",
    ),
    "one storage many times": (
        lambda f, _: saved(
            {str(i): t for t in [torch.ones(10_000)] for i in range(99)}, f / "m.pt"
        ),
        "exhaust memory",
    ),
    "deflated": (lambda f, _: deflated(f / "m.pt"), "m/data/0"),
    "too many members": (lambda f, _: many_members(f / "m.pt"), "65,535 members"),
    "long header": (lambda f, _: long_header(f / "m.safetensors"), "33,554,432 bytes"),
    "deep nesting": (lambda f, _: saved(deep(100), f / "m.pt"), "64 levels"),
    "wide nesting": (lambda f, _: bomb(f / "m.pt"), "200,000 entries"),
    "very many keys": (
        lambda f, _: saved(
            {"state_dict": weights(), "x": dict.fromkeys(range(301_000))}, f / "m.pt"
        ),
        "600,000 operations",
    ),
}
"""What to name on the command line, and what the refusal names."""
