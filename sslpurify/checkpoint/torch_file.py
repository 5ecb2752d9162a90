"""torch's two containers: read without running anything, written so that bytes depend on content.

Reading goes through two gates: the static one of ``pickles``, then torch's own unpickler with
``weights_only=True``, always passed explicitly because an environment variable can change the
default. There is no second attempt with a laxer setting.
"""

import os
import pickle
import struct
import warnings
import zipfile
from io import BufferedReader, BufferedWriter, BytesIO
from typing import Any

import torch

from sslpurify.checkpoint.pickles import require_plain
from sslpurify.checkpoint.sniff import LEGACY_MAGIC
from sslpurify.errors import CheckpointError, UnsafeInputError
from sslpurify.statedict import listing

_MAX_MEMBERS = 100_000


def load_zip(file: BufferedReader) -> Any:
    """What a zip of ``torch.save`` holds, on the CPU.

    Raises:
        UnsafeInputError: It is a program, names code, or would unpack to more than it is.
        CheckpointError: It is damaged, truncated or another kind of zip.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            program = archive.read(_pickle_member(archive, file.seek(0, os.SEEK_END)))
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, struct.error) as error:
        raise CheckpointError(
            "a zip archive that is truncated or damaged: download it again"
        ) from error
    require_plain(BytesIO(program))
    return _load(file)


def _pickle_member(archive: zipfile.ZipFile, size: int) -> zipfile.ZipInfo:
    """The member that holds the pickle, after all members were found harmless."""
    members = archive.infolist()
    names = [member.filename for member in members]
    inside = {name.partition("/")[2] for name in names}
    if len(members) > _MAX_MEMBERS:
        raise UnsafeInputError(f"a zip archive of {len(members):,} members would exhaust memory")
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        raise UnsafeInputError(
            "a TorchScript archive, which is a program and not a file of weights. Ask its "
            "publisher for the state dict, or take the state dict out of it in a container "
            "without network and save that with safetensors"
        )
    if "archive_format" in inside or "models/model.json" in inside:
        raise UnsafeInputError(
            "a PT2 archive (torch.export), which is a program and not a file of weights. Ask its "
            "publisher for the state dict"
        )
    packed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]
    if packed or sum(member.file_size for member in members) > size:
        raise UnsafeInputError(
            f"a zip archive that unpacks to more than its {size:,} bytes would exhaust memory "
            f"({listing(packed) or 'members that overlap'}); torch never compresses its files"
        )
    pickles = [member for member in members if member.filename.partition("/")[2] == "data.pkl"]
    if len(set(names)) != len(names) or len(pickles) > 1:
        raise CheckpointError("a zip archive that holds two members of one name: it was tampered")
    if not pickles:
        raise CheckpointError(f"a zip archive, but not one of torch: it holds {listing(names)}")
    return pickles[0]


def load_legacy(file: BufferedReader) -> Any:
    """What a file of ``torch.save`` before version 1.6 holds, on the CPU.

    Raises:
        UnsafeInputError: It names code.
        CheckpointError: It is damaged or truncated.
    """
    file.seek(0)
    require_plain(file, pickles=5)
    return _load(file)


def _load(file: BufferedReader) -> Any:
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # Without the cause: torch's text advises to load without the safety check.
        raise UnsafeInputError(
            "torch's safe reader refused its pickle; nothing was run. Ask its publisher for a "
            "safetensors file, or for a checkpoint that holds nothing but the state dict"
        ) from None
    except Exception:  # noqa: BLE001 (a hostile file can trip the reader over anything)
        raise CheckpointError(
            "a torch file that is truncated or damaged: download it again"
        ) from None


def save_zip(tree: Any, file: BufferedWriter) -> None:
    """Writes the zip of ``torch.save``, whose folder is not named after the file."""
    torch.save(tree, file)


def save_legacy(tree: Any, file: BufferedWriter) -> None:
    """Writes the format of torch before 1.6, which ``torch.save`` cannot do reproducibly.

    torch names each storage by its address in memory; here they are numbered as they appear.
    """
    file.write(LEGACY_MAGIC)
    sizes = {"short": 2, "int": 4, "long": 4}
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    for item in (1001, system):
        pickle.dump(item, file, protocol=2)
    pickler = _Pickler(file)
    pickler.dump(tree)
    pickle.dump([key for key, _, _ in pickler.storages.values()], file, protocol=2)
    for _, elements, storage in pickler.storages.values():
        file.write(struct.pack("<q", elements))
        file.write(torch.empty(0, dtype=torch.uint8).set_(storage).numpy().data)


class _Pickler(pickle.Pickler):
    """Pickles tensors as torch does, and collects the storages they lie in."""

    def __init__(self, file: BufferedWriter) -> None:
        super().__init__(file, protocol=2)
        self.storages: dict[tuple[int, str], tuple[str, int, torch.UntypedStorage]] = {}

    def persistent_id(self, obj: Any) -> tuple[object, ...] | None:
        if not isinstance(obj, torch.storage.TypedStorage):
            return None
        # torch has no public name for these three that does not warn.
        storage = obj._untyped_storage  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        elements = obj._size()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        kind = obj._pickle_storage_type()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        found = (str(len(self.storages)), elements, storage)
        key, *_ = self.storages.setdefault((storage.data_ptr(), kind), found)
        return ("storage", getattr(torch, kind), key, "cpu", elements, None)
