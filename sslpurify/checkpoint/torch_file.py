"""torch's containers: where the tensors of a file lie in it. Nothing of it is run, or loaded yet.

A checkpoint is a pickle that describes tensors, beside the storages with their data: in a zip
archive (since torch 1.6), or one behind the other (before). A TorchScript archive has the same
pickle and storages, beside a program.
"""

import os
from collections.abc import Collection, Iterable
from io import BufferedReader, BytesIO
from typing import Any

from sslpurify.checkpoint.archive import survey
from sslpurify.checkpoint.pickles import Program, interpret
from sslpurify.checkpoint.stored import Contents, Inert, Span, Storage, Stored
from sslpurify.errors import CheckpointError, UnsafeInputError
from sslpurify.statedict import listing

_MAX_PICKLE = 256 * 2**20
_MAX_DEPTH = 64
_OF_TORCHSCRIPT = {"constants.pkl", "attributes.pkl", "model.json"}
_OF_PT2 = {"archive_format", "models/model.json"}
_PROTOCOL = 1001
_CONTAINERS = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".safetensors", ".zip", ".tar", ".gz")


def load_zip(file: BufferedReader, *, allow_torchscript: bool = False) -> Contents:
    """What a zip of ``torch.save`` holds.

    Args:
        file: The archive.
        allow_torchscript: Whether to take the weights out of the archive of a program. The program
            is not run, and comes back as it is around new weights.

    Raises:
        UnsafeInputError: It is a program, names code, or would unpack to more than it is.
        CheckpointError: It is damaged, truncated or another kind of zip.
    """
    found, packed = survey(file)
    script = _is_torchscript(found)
    if script and not allow_torchscript:
        raise UnsafeInputError(
            "a TorchScript archive, which is a program and not a file of weights. Ask its "
            "publisher for the state dict; or take the weights out of it with "
            "--allow-torchscript, which does not run it either, but leaves the program around "
            "them, unread, for whoever runs it next"
        )
    needed = [name for name in packed if not script or _is_data(name)]
    if needed:
        raise UnsafeInputError(
            f"a zip archive with packed members ({listing(needed)}), which could unpack to any "
            "size and exhaust memory; torch never packs weights"
        )
    root = _root(found)
    _require_little_endian(file, found.get(f"{root}/byteorder"))
    program = interpret(BytesIO(_member(file, found[f"{root}/data.pkl"])))
    spans = {
        key: _span(found.get(f"{root}/data/{key}"), storage)
        for key, storage in program.storages.items()
    }
    tree = _parameters(program.value) if script else program.value
    inert = tuple(name for name in program.inert if not script or "__torch__" not in name)
    return Contents("torchscript" if script else "torch-zip", tree, spans, inert)


def _is_data(name: str) -> bool:
    inside = name.partition("/")[2]
    return inside in ("data.pkl", "byteorder") or inside.startswith("data/")


def _is_torchscript(found: Iterable[str]) -> bool:
    """Whether the archive is a TorchScript program; one of torch.export is never read."""
    inside = {name.partition("/")[2] for name in found}
    if inside & _OF_PT2:
        raise UnsafeInputError(
            "a PT2 archive (torch.export), which is a program and not a file of weights. Ask its "
            "publisher for the state dict"
        )
    return bool(inside & _OF_TORCHSCRIPT) or any(name.startswith("code/") for name in inside)


def _root(found: Collection[str]) -> str:
    """The folder in the archive that has the pickle."""
    roots = [name.partition("/")[0] for name in found if name.partition("/")[2] == "data.pkl"]
    if len(roots) > 1:
        raise CheckpointError(f"a zip archive of {len(roots)} checkpoints: it was tampered")
    if not roots:
        inner = [name for name in found if name.lower().endswith(_CONTAINERS)]
        if inner:
            raise UnsafeInputError(
                f"a zip archive with {listing(inner)} inside, which is never unpacked here: "
                "unpack it and name the checkpoint"
            )
        if any(name.endswith(".npy") for name in found):
            raise UnsafeInputError(
                "an archive of numpy arrays, which may hold pickled objects, and not a checkpoint; "
                "nothing was run. Ask its publisher for a safetensors file"
            )
        raise CheckpointError(f"a zip archive, but not one of torch: it holds {listing(found)}")
    return roots[0]


def _member(file: BufferedReader, span: Span) -> bytes:
    if span.size > _MAX_PICKLE:
        raise UnsafeInputError(f"a pickle of {span.size:,} bytes would exhaust memory")
    file.seek(span.start)
    return file.read(span.size)


def _require_little_endian(file: BufferedReader, span: Span | None) -> None:
    if span is not None and _member(file, span) != b"little":
        raise CheckpointError("it was saved on a big-endian machine: save it again on a usual one")


def _span(span: Span | None, storage: Storage) -> Span:
    if span is None or span.size != storage.size:
        raise CheckpointError(
            f"the data of its storage {listing([storage.key])} is "
            f"{'missing' if span is None else f'{span.size:,} and not {storage.size:,} bytes'}: "
            "download it again"
        )
    return span


def _parameters(module: Any) -> dict[str, Stored]:
    """The tensors of a module of TorchScript, by the names that its state dict has."""
    found: dict[str, Stored] = {}
    entered: set[int] = set()
    pending: list[tuple[str, Any]] = [("", module)]
    while pending:
        place, item = pending.pop()
        if isinstance(item, Stored):
            found[place] = item
        elif isinstance(item, Inert) and id(item) not in entered:
            entered.add(id(item))
            if place.count(".") > _MAX_DEPTH:
                raise UnsafeInputError(f"it is nested more than {_MAX_DEPTH} levels deep")
            states = (state for state in item.content if isinstance(state, dict))
            named = [(name, value) for state in states for name, value in state.items()]
            pending += [
                (f"{place}.{name}".removeprefix("."), value)
                for name, value in reversed(named)
                if isinstance(name, str)
            ]
    return found


def load_legacy(file: BufferedReader) -> Contents:
    """What a file of ``torch.save`` before version 1.6 holds.

    Raises:
        UnsafeInputError: It names code.
        CheckpointError: It is damaged or truncated.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    _magic, protocol, system, program, keys = (interpret(file) for _ in range(5))
    if protocol.value != _PROTOCOL or not isinstance(keys.value, list):
        raise CheckpointError("a torch file of an unknown version, or damaged: download it again")
    if not isinstance(system.value, dict) or system.value.get("little_endian") is not True:
        raise CheckpointError("it was saved on a big-endian machine: save it again on a usual one")
    spans: dict[str, Span] = {}
    start = file.tell()
    for key in keys.value:
        storage = _storage(program, key)
        file.seek(start)
        if int.from_bytes(file.read(8), "little") != storage.elements or key in spans:
            raise CheckpointError(f"the data of its storage {listing([key])} is damaged")
        spans[key] = Span(start + 8, storage.size)
        start += 8 + storage.size
    if start > size or spans.keys() != program.storages.keys():
        raise CheckpointError(
            f"a torch file that is truncated or damaged: {size:,} of {start:,} bytes: download it "
            "again"
        )
    return Contents("torch-legacy", program.value, spans, program.inert)


def _storage(program: Program, key: Any) -> Storage:
    if not isinstance(key, str) or key not in program.storages:
        raise CheckpointError("a torch file whose storages are not listed: download it again")
    return program.storages[key]
