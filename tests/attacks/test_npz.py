import io
import zipfile

import numpy as np
import pytest

from sslpurify.attacks.npz import read_array
from sslpurify.errors import DataError, UnsafeInputError


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


def npy(array, **kwargs):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **kwargs)
    return buffer.getvalue()


def pack(path, compression=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
        np.linspace(0, 1, 6).reshape(2, 3),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(6, dtype=">i8"),
        np.array([True, False]),
    ],
)
def test_arrays_come_back_as_numpy_wrote_them(tmp_path, save, array):
    save(tmp_path / "a.npz", x=array, y=np.zeros(3))
    np.testing.assert_array_equal(read_array(tmp_path / "a.npz", "x"), array)


def test_pickled_objects_are_refused_unread(tmp_path):
    canary = tmp_path / "canary"
    array = np.array([Payload(canary)], dtype=object)
    pack(tmp_path / "a.npz", t=npy(array, allow_pickle=True))
    with pytest.raises(UnsafeInputError, match=r"a\.npz: array 't' holds pickled Python objects"):
        read_array(tmp_path / "a.npz", "t")
    assert not canary.exists()


def test_a_bomb_is_refused_by_its_stated_size(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("t.npy", "w") as member,
    ):
        for _ in range(65):
            member.write(bytes(2**20))
    with pytest.raises(UnsafeInputError, match="more than 64 MiB"):
        read_array(tmp_path / "a.npz", "t")


def test_a_header_that_promises_more_than_there_is_takes_no_memory(tmp_path):
    header = npy(np.zeros((1, 1, 3))).replace(b"(1, 1, 3), ", b"(10**9,9), "[:11])
    assert header != npy(np.zeros((1, 1, 3)))
    huge = npy(np.zeros((1, 1, 3))).replace(b"(1, 1, 3)", b"(9,99999)")
    for data in (header, huge):
        pack(tmp_path / "a.npz", t=data)
        with pytest.raises(DataError, match=r"a\.npz: array 't'"):
            read_array(tmp_path / "a.npz", "t")


@pytest.mark.parametrize(
    ("array", "reason"),
    [(np.array(["text"]), "not numbers"), (np.array([1j]), "not numbers")],
)
def test_only_numbers_are_arrays(tmp_path, array, reason):
    np.savez(tmp_path / "a.npz", t=array)
    with pytest.raises(DataError, match=reason):
        read_array(tmp_path / "a.npz", "t")


def test_named_fields_are_not_numbers(tmp_path):
    np.savez(tmp_path / "a.npz", t=np.zeros(2, dtype=[("field", "f4")]))
    with pytest.raises(DataError, match="not numbers"):
        read_array(tmp_path / "a.npz", "t")
    data = npy(np.zeros(3))
    pack(tmp_path / "a.npz", t=data[:6] + b"\x03" + data[7:])
    with pytest.raises(DataError, match=r"npy version \(3, 0\)"):
        read_array(tmp_path / "a.npz", "t")


def test_compression_with_a_dictionary_of_any_size_is_refused(tmp_path):
    pack(tmp_path / "a.npz", zipfile.ZIP_LZMA, t=npy(np.zeros(3)))
    with pytest.raises(DataError, match="numpy does not write"):
        read_array(tmp_path / "a.npz", "t")


def test_a_missing_array_is_named_with_those_that_are_there(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3), y=np.zeros(3))
    with pytest.raises(DataError, match=r"array 't' is missing; the file has: x\.npy, y\.npy"):
        read_array(tmp_path / "a.npz", "t")


def test_a_damaged_file_is_one_error(tmp_path):
    path = tmp_path / "a.npz"
    rng = np.random.default_rng(0)
    np.savez(path, t=rng.random(500))
    whole = path.read_bytes()
    for length in (0, 10, 200, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="damaged"):
            read_array(path, "t")
    path.write_bytes(whole[:400] + b"\0\0\0\0" + whole[404:])
    with pytest.raises(DataError, match="damaged"):
        read_array(path, "t")
    with pytest.raises(DataError, match="no such file"):
        read_array(tmp_path / "none.npz", "t")
    with pytest.raises(DataError, match="no such file"):
        read_array(tmp_path, "t")
