"""Mutates valid checkpoints and reads them, in a process of little memory and a clock.

Run as ``python -m tests.fuzz.worker EXAMPLES``: ends with 0 when every case was one of our errors,
or a checkpoint that is written back byte for byte.
"""

import json
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sslpurify.checkpoint import read, write
from sslpurify.errors import CheckpointError, UnsafeInputError
from sslpurify.statedict import identical
from tests.checkpoint.files import weights

SECONDS = 5
MEMORY = 512 * 2**20
"""Beyond what the process has when the first case begins."""
NUMBERS = (b"\xff" * 4, b"\x00" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\xff" * 8)
OPCODES = tuple(
    bytes([code]) for code in b"\x80}]()tlds0122NIJKMLGXUCc\x93R\x81\x92bioPQhjgqrpea\x90u."
)
NAMES = (
    *(b"cposix\nsystem\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"cbuiltins\nbytearray\n"),
    *(b"ctorch\nSize\n", b"ccollections\nOrderedDict\n", b"ctorch.storage\nUntypedStorage\n"),
)


def tree() -> dict[str, Any]:
    """Something of all that a pickle can hold."""
    settings_of = {"lr": 0.1, "sizes": torch.Size([1, 2]), "names": ("a", None, True, b"x", {1})}
    return {
        "state_dict": weights(),
        "epoch": 3,
        "hyper": settings_of,
        "s": torch.eye(2).to_sparse(),
    }


def make_sources(folder: Path) -> dict[str, Path]:
    """One valid file of each kind; of a folder, its index."""
    paths = {kind: folder / kind for kind in ("zip", "legacy", "protocol 5", "safetensors")}
    torch.save(tree(), paths["zip"])
    torch.save(tree(), paths["legacy"], _use_new_zipfile_serialization=False)
    torch.save(tree(), paths["protocol 5"], pickle_protocol=5)
    save_file(dict(weights()), paths["safetensors"], metadata={"format": "pt"})
    sharded = folder / "sharded"
    sharded.mkdir()
    names = list(weights())
    files = {
        name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(names)
    }
    for file in set(files.values()):
        save_file({n: weights()[n] for n in names if files[n] == file}, sharded / file)
    (sharded / "config.json").write_text(json.dumps({"model_type": "clip", "sizes": [1, {"a": 2}]}))
    index = sharded / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    return {**paths, "index": index, "config": sharded / "config.json"}


def mutated(content: bytes, draw: Callable[..., Any]) -> bytes:
    """A few changes: bytes, numbers, opcodes, names, pieces moved, doubled, cut out or cut off."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        end = min(len(content), at + draw(st.sampled_from((0, 1, 2, 4, 8, 40))))
        other = draw(st.integers(0, len(content)))
        new = draw(
            st.one_of(
                st.binary(max_size=4),
                st.sampled_from((*NUMBERS, *OPCODES, *NAMES)),
                st.just(content[other : other + 64]),
                st.sampled_from(
                    (b"\xf0\x9f", b'"', b"{", b"}", b"[", b",", b":", b"\\u0000", b"1e999")
                ),
            )
        )
        content = content[:at] + new + content[end:]
        if draw(st.integers(0, 15)) == 0:
            content = content[:at]
    return content


def late(_signal: int, _frame: object) -> NoReturn:
    raise AssertionError(f"more than {SECONDS} seconds")


def check(path: Path, folder: Path) -> None:
    """Reads what was mutated; what can be read is written back as it is."""
    try:
        checkpoint = read(path)
    except (CheckpointError, UnsafeInputError) as error:
        text = str(error)
        assert text.startswith(f"{path}"), text
        assert "\n" not in text, text
        assert "weights_only" not in text, text
        return
    copy = folder / f"copy of {path.name}"
    shutil.rmtree(copy, ignore_errors=True)
    write(checkpoint, copy)
    if path.is_dir():
        return
    assert copy.read_bytes() == path.read_bytes()
    if checkpoint.container == "safetensors":
        library = load_file(path)
        assert all(identical(library[n], t) for n, t in checkpoint.tensors.items())


def main(examples: int) -> None:
    """Runs that many cases."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = make_sources(folder)
        contents = {kind: path.read_bytes() for kind, path in sources.items()}
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        signal.signal(signal.SIGALRM, late)

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(data=st.data())
        def case(data: st.DataObject) -> None:
            kind = data.draw(st.sampled_from(sorted(sources)))
            path = sources[kind]
            path.write_bytes(mutated(contents[kind], data.draw))
            signal.alarm(SECONDS)
            try:
                check(path.parent if path.suffix == ".json" else path, folder)
            finally:
                signal.alarm(0)
                path.write_bytes(contents[kind])

        case()


if __name__ == "__main__":
    main(int(sys.argv[1]))
