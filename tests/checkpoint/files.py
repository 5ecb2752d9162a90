"""Files for the tests, hostile ones among them, all made when a test runs."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def weights(seed: int = 0, dtype: torch.dtype = torch.float32) -> OrderedDict[str, Tensor]:
    """A small state dict as a module gives it, versions of its modules included."""
    torch_state: OrderedDict[str, Tensor] = OrderedDict()
    draw = torch.Generator().manual_seed(seed)
    torch_state["conv1.weight"] = torch.randn(4, 3, 3, 3, generator=draw).to(dtype)
    torch_state["bn1.weight"] = torch.rand(4, generator=draw).to(dtype)
    torch_state["bn1.running_var"] = torch.rand(4, generator=draw).to(dtype)
    torch_state["bn1.num_batches_tracked"] = torch.tensor(7)
    torch_state.__dict__["_metadata"] = OrderedDict([("bn1", {"version": 2})])
    return torch_state


def save_zip(tree: Any, path: Path) -> None:
    torch.save(tree, path)


def save_legacy(tree: Any, path: Path) -> None:
    torch.save(tree, path, _use_new_zipfile_serialization=False)


def save_safetensors(tree: Any, path: Path) -> None:
    save_file(dict(tree), path, metadata={"format": "pt"})


SAVERS: dict[str, Callable[[Any, Path], None]] = {
    "safetensors": save_safetensors,
    "torch-zip": save_zip,
    "torch-legacy": save_legacy,
}


def zip_around(program: bytes) -> bytes:
    """A pickle in the zip of torch.save."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def legacy_around(program: bytes) -> bytes:
    """A pickle in the format of torch before 1.6."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = (pickle.dumps(item, protocol=2) for item in (LEGACY_MAGIC, 1001, system))
    return b"".join((*head, program, pickle.dumps([], protocol=2)))


class Call:
    """Pickles into a call of ``os.system``."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def programs(command: str) -> dict[str, bytes]:
    """Pickles that each run a shell command in another way when they are loaded."""
    text = command.encode()
    unicode = b"X" + len(text).to_bytes(4, "little") + text
    hook = b"X\x0c\x00\x00\x00__setstate__"
    return {
        "reduce": pickle.dumps({"state_dict": Call(command)}, protocol=2),
        "reduce, protocol 0": pickle.dumps(Call(command), protocol=0),
        "stack_global": pickle.dumps(Call(command), protocol=4),
        "stack_global through the memo": (
            b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x8c\x0bcollections\x8c\x0bOrderedDict"
            b"00" + b"h\x00h\x01\x93" + unicode + b"\x85R."
        ),
        "inst": b"(S'" + text + b"'\niposix\nsystem\n.",
        "obj": b"(cposix\nsystem\nS'" + text + b"'\no.",
        "build": (
            b"\x80\x02ctypes\nSimpleNamespace\n)\x81}" + hook + b"cposix\nsystem\nsb" + unicode
        )
        + b"b.",
    }
