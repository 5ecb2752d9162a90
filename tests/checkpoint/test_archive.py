"""Zip archives are read as torch writes them, and in no other way that a reader might forgive."""

import io
import zipfile
from pathlib import Path

import pytest
import torch

from sslpurify.checkpoint import read
from sslpurify.checkpoint.archive import survey
from sslpurify.errors import CheckpointError, UnsafeInputError
from tests.checkpoint.files import save_zip, weights


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    save_zip(weights(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_members_lie_where_the_library_finds_them(archive):
    content = archive.read_bytes()
    with archive.open("rb") as file:
        members, packed = survey(file)
    assert packed == ()
    with zipfile.ZipFile(archive) as library:
        assert list(members) == library.namelist()
        for info in library.infolist():
            start, size, checksums = members[info.filename]
            assert content[start : start + size] == library.read(info)
            stands = {content[place : place + 4] for place in checksums}
            assert stands == {info.CRC.to_bytes(4, "little")}
            assert len(checksums) == 2  # in the directory, and behind the data


def test_the_library_finds_new_weights_intact(archive, tmp_path):
    from sslpurify.checkpoint import replace, write

    write(replace(read(archive), weights(1)), tmp_path / "new.pt")
    with zipfile.ZipFile(tmp_path / "new.pt") as library:
        assert library.testzip() is None
    loaded = torch.load(tmp_path / "new.pt", weights_only=True)
    assert torch.equal(loaded["conv1.weight"], weights(1)["conv1.weight"])


@pytest.mark.parametrize("writer", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_another_program_is_read_if_nothing_is_packed(writer, archive, tmp_path):
    """Python's own writer puts checksums before the data, and lays members out without padding."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(tmp_path / "z", "w", writer) as copy:
        for name in source.namelist():
            copy.writestr(name, source.read(name))
    if writer == zipfile.ZIP_DEFLATED:
        with pytest.raises(UnsafeInputError, match="packed members"):
            read(tmp_path / "z")
    else:
        assert torch.equal(read(tmp_path / "z").tensors["bn1.weight"], weights()["bn1.weight"])


def changed(content: bytes, name: str) -> bytes:
    """An archive that some readers take for another, or for none."""
    end = len(content) - 22
    directory = content.index(b"PK\x01\x02")
    first = content.index(b"PK\x01\x02", directory + 1)
    return {
        "bytes behind": content + b"x",
        "bytes before": b"PK\x03\x04" + content,
        "a comment": content[:-2] + b"\x05\x00hello",
        "another archive behind": content + content,
        "a gap before the directory's end": content[:end] + b"x" + content[end:],
        "another name in the directory": content.replace(b"data.pkl", b"data.pk2", 1),
        "an entry twice": content[:directory] + content[directory:first] * 2 + content[first:],
        "no directory": content[:directory] + content[-22:],
        "encrypted": content[: directory + 8] + b"\x01" + content[directory + 9 :],
    }[name]


NAMES = (
    *("bytes behind", "bytes before", "a comment", "another archive behind", "an entry twice"),
    *("a gap before the directory's end", "another name in the directory", "no directory"),
    "encrypted",
)


@pytest.mark.parametrize("name", NAMES)
def test_what_readers_disagree_about_is_damage(name, archive, tmp_path):
    (tmp_path / "z").write_bytes(changed(archive.read_bytes(), name))
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read(tmp_path / "z")


def test_members_that_overlap_are_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m/data.pkl", b"x" * 100)
        archive.writestr("m/data/0", b"y")
    content = buffer.getvalue()
    second = content.rindex(b"PK\x03\x04")
    entry = content.rindex(b"PK\x01\x02")
    # The first member now reaches into the second.
    size = (100 + len(content[second : content.index(b"PK\x01\x02")])).to_bytes(4, "little")
    first = content.index(b"PK\x01\x02")
    content = content[: first + 20] + size + size + content[first + 28 :]
    assert entry > first
    (tmp_path / "z").write_bytes(content)
    with pytest.raises(UnsafeInputError, match="overlap"):
        read(tmp_path / "z")
