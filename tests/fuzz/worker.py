"""Mutates valid files and reads them, in a process of little memory and a clock.

Run as ``python -m tests.fuzz.worker EXAMPLES SEED``: ends with 0 when every case was one of our
errors, a checkpoint that is written back byte for byte, or images with captions.
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
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sslpurify.checkpoint import read, write
from sslpurify.data import read_pairs
from sslpurify.data.sources import TarMember
from sslpurify.errors import CheckpointError, DataError, UnsafeInputError
from sslpurify.statedict import identical
from tests.checkpoint.files import weights
from tests.data.tars import png, write_tar

SECONDS = 5
"""Of computing. Twelve times as long on the clock is a hang; a busy machine is slow, not wrong."""
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
    return {
        **paths,
        "index": index,
        "config": sharded / "config.json",
        "table": make_table(folder / "pairs"),
        "tar": write_tar(
            folder / "pairs.tar",
            {
                "ä/0.png": png(0),
                "ä/0.txt": "\ufeffeins\r\n".encode(),
                "n" * 120 + ".png": png(1),
                "n" * 120 + ".json": b'{"caption": "two"}',
            },
        ),
    }


def make_table(folder: Path) -> Path:
    """Two images and a table of all that a field can be."""
    folder.mkdir()
    for place, name in enumerate(("a.png", "b.png")):
        (folder / name).write_bytes(png(place))
    rows = '\ufefffilepath,title,"n"\r\na.png,"one, ""two""\r\nthree",1\r\n./b.png,vier é,\r\n'
    (folder / "pairs.csv").write_bytes(rows.encode())
    return folder / "pairs.csv"


def mutated(content: bytes, draw: Callable[..., Any]) -> bytes:
    """A few changes: bytes, numbers, opcodes, names, pieces moved, doubled, cut out or cut off."""
    in_place = draw(st.booleans())
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
        content = content[:at] + new + content[at + len(new) if in_place else end :]
        if draw(st.integers(0, 15)) == 0:
            content = content[:at]
    return content


def repaired(content: bytes) -> bytes:
    """A tar whose headers have their checksums again, or every change would stop at these."""
    blocks = [bytearray(content[at : at + 512]) for at in range(0, len(content), 512)]
    for block in blocks:
        if block[257:262] == b"ustar" and len(block) == 512:
            block[148:156] = b" " * 8
            block[148:155] = b"%06o\0" % sum(block)
    return b"".join(blocks)


def late(_signal: int, _frame: object) -> NoReturn:
    raise AssertionError(f"more than {SECONDS} seconds")


def check_pairs(path: Path) -> None:
    """Reads what was mutated; what can be read lies where it may and has captions."""
    try:
        pairs = read_pairs(path, 4, max_bad_fraction=0.9)
    except (DataError, UnsafeInputError) as error:
        text = str(error)
        assert path.name in text, text
        assert text.isprintable(), text
        return
    assert len(pairs.images) == len(pairs.captions) > 0
    assert all(caption.strip() for some in pairs.captions for caption in some)
    for source in pairs.images.sources:
        if isinstance(source, TarMember):
            assert source.offset + source.size <= path.stat().st_size
        else:
            assert source.is_relative_to(path.parent.resolve())


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


def main(examples: int, first: int) -> None:
    """Runs that many cases, others for every seed."""
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
        signal.signal(signal.SIGPROF, late)

        @seed(first)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(data=st.data())
        def case(data: st.DataObject) -> None:
            kind = data.draw(st.sampled_from(sorted(sources)))
            path = sources[kind]
            content = mutated(contents[kind], data.draw)
            repair = kind == "tar" and data.draw(st.booleans())
            path.write_bytes(repaired(content) if repair else content)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.alarm(12 * SECONDS)
            try:
                if kind in ("table", "tar"):
                    check_pairs(path)
                else:
                    check(path.parent if path.suffix == ".json" else path, folder)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.alarm(0)
                path.write_bytes(contents[kind])

        case()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
