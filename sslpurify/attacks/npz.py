"""Arrays from the npz files that people share, read without trusting a word of them."""

import zipfile
from io import BytesIO
from math import prod
from pathlib import Path

import numpy as np

from sslpurify.data.folder import printable
from sslpurify.errors import DataError, SslPurifyError, UnsafeInputError

MAX_BYTES = 64 * 2**20
"""Most bytes of one array; a 1024 px trigger in float64 has 24 MiB."""

_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy writes; LZMA may ask for 4 GiB


def read_array(path: Path, name: str) -> np.ndarray:
    """One numeric array of an npz file.

    Nothing is unpickled, and no more memory is taken than the bytes that are there.

    Args:
        path: The file.
        name: The array's name, without ``.npy``.

    Raises:
        DataError: No such file or array, damaged, or not numbers.
        UnsafeInputError: The array holds Python objects or has more than 64 MiB.
    """
    where = f"{printable(path)}: array {name!r}"
    if not path.is_file():
        raise DataError(f"{printable(path)}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{name}.npy" not in archive.namelist():
                has = ", ".join(printable(member) for member in archive.namelist()[:9])
                raise DataError(f"{where} is missing; the file has: {has or 'nothing'}")
            member = archive.getinfo(f"{name}.npy")
            if member.file_size > MAX_BYTES:
                raise UnsafeInputError(f"{where} has more than {MAX_BYTES // 2**20} MiB")
            if member.compress_type not in _PLAIN:
                raise DataError(f"{where} is compressed in a way that numpy does not write")
            return _parse(archive.read(member), where)
    except SslPurifyError:
        raise
    # Hostile bytes make zipfile, zlib and numpy fail in every way there is; each means the same.
    except Exception as error:
        raise DataError(f"{where} is damaged: {printable(str(error))}") from error


def _parse(data: bytes, where: str) -> np.ndarray:
    stream = BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise DataError(f"{where} has npy version {version}, made for named fields, not numbers")
    if dtype.hasobject:
        raise UnsafeInputError(f"{where} holds pickled Python objects, which could run code")
    if dtype.kind not in "buif":
        raise DataError(f"{where} has type {dtype}, not numbers")
    if prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise DataError(f"{where} has shape {shape} but {len(data)} bytes")
    return np.frombuffer(stream.read(), dtype).reshape(shape, order="F" if fortran else "C")
