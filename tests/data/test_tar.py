import contextlib
import gzip
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslpurify.data.sources import TarMember, read_member
from sslpurify.data.tar import MAX_HEADER, entries
from sslpurify.errors import DataError, UnsafeInputError
from tests.data.tars import add, write_tar

FORMS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]

NAMES = st.lists(
    st.text(
        st.characters(codec="utf-8", exclude_characters="/\\\0"), min_size=1, max_size=60
    ).filter(lambda part: part not in (".", "..")),
    min_size=1,
    max_size=4,
).map("/".join)


def listed(tar: Path) -> list[tuple[str, bytes]]:
    return [(entry.member.name, read_member(entry.member)) for entry in entries(tar)]


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(NAMES, st.binary(max_size=1500), max_size=5), st.sampled_from(FORMS[1:]))
def test_members_are_those_that_were_written(tmp_path_factory, members, form):
    tar = write_tar(tmp_path_factory.getbasetemp() / "a.tar", members, form)
    assert listed(tar) == list(members.items())


@pytest.mark.parametrize("form", FORMS)
def test_every_format_is_read_as_tarfile_reads_it(tmp_path: Path, form: int):
    deep = "/".join(["folder" * 5] * 4)
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
        add(tar, "./a.txt", b"x" * 512)
        add(tar, "folder", type=tarfile.DIRTYPE)
        add(tar, f"{deep}/b.txt", b"y")
        add(tar, "soft.png", type=tarfile.SYMTYPE, linkname="/" + "l" * 90)
        add(tar, "hard.png", type=tarfile.LNKTYPE, linkname="a.txt")
        add(tar, "pipe.png", type=tarfile.FIFOTYPE)
        add(tar, "device.png", type=tarfile.CHRTYPE)
        add(tar, "old.txt", b"z", type=tarfile.AREGTYPE)
        add(tar, "empty")
    files = {e.member.name: e.member for e in entries(tmp_path / "a.tar") if not e.problem}
    with tarfile.open(tmp_path / "a.tar") as tar:
        expected = {m.name.removeprefix("./"): m for m in tar.getmembers() if m.isreg()}
        assert list(files) == list(expected)
        for name, member in files.items():
            assert (member.offset, member.size) == (expected[name].offset_data, expected[name].size)
    problems = [(e.member.name, e.problem) for e in entries(tmp_path / "a.tar") if e.problem]
    assert problems == [
        ("soft.png", "a symbolic link"),
        ("hard.png", "a hard link"),
        ("pipe.png", "a FIFO"),
        ("device.png", "a device"),
    ]


def test_long_names_and_links_of_gnu_belong_to_the_next_member_only(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        add(tar, "n" * 300, b"1")
        add(tar, "link", type=tarfile.SYMTYPE, linkname="t" * 300)
        add(tar, "short", b"2")
    assert [entry.member.name for entry in entries(tmp_path / "a.tar")] == [
        "n" * 300,
        "link",
        "short",
    ]


@pytest.mark.parametrize(
    "name", ["../a.png", "a/../../b.png", "/etc/passwd", "..\\a.png", "a/..", "x" * 5000]
)
@pytest.mark.parametrize("form", FORMS[1:])
def test_names_outside_the_archives_folder_are_refused(tmp_path: Path, name: str, form: int):
    tar = write_tar(tmp_path / "a.tar", {"fine.png": b"1", name: b"2"}, form)
    with pytest.raises(UnsafeInputError, match=r"a\.tar: the name of member \d, .* refused"):
        list(entries(tar))


def test_a_nul_in_a_name_is_refused(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "a", pax_headers={"path": "a\0b"})
    with pytest.raises(UnsafeInputError, match=r"a\\x00b"):
        list(entries(tmp_path / "a.tar"))


@pytest.mark.parametrize("squeeze", ["gz", "bz2", "xz"])
def test_compressed_archives_are_named(tmp_path: Path, squeeze: str):
    with tarfile.open(tmp_path / "a.tar", f"w:{squeeze}") as tar:
        add(tar, "a", b"1" * 9000)
    with pytest.raises(DataError, match=r"is compressed \(\w+\): unpack it to \.tar"):
        list(entries(tmp_path / "a.tar"))


def test_what_is_no_archive_says_so(tmp_path: Path):
    for data, message in (
        (b"", "header 1 is missing: the archive is empty or truncated"),
        (b"<html>" * 200, "header 1 is damaged .or the file is no tar archive"),
        (gzip.compress(b"")[:2], "compressed"),
    ):
        (tmp_path / "a.tar").write_bytes(data)
        with pytest.raises(DataError, match=message):
            list(entries(tmp_path / "a.tar"))
    with pytest.raises(DataError, match=r"b\.tar: does not exist"):
        list(entries(tmp_path / "b.tar"))
    with pytest.raises(DataError, match="not a regular file"):
        list(entries(tmp_path))


def test_every_truncation_is_noticed(tmp_path: Path):
    whole = write_tar(tmp_path / "a.tar", {"a.png": b"1" * 700, "b.png": b"2"}).read_bytes()
    end = 512 + 1024 + 512 + 512
    for length in range(0, end + 1, 64):
        (tmp_path / "b.tar").write_bytes(whole[:length])
        with pytest.raises(DataError, match="truncated"):
            list(entries(tmp_path / "b.tar"))
    (tmp_path / "b.tar").write_bytes(whole[: end + 512])
    assert len(list(entries(tmp_path / "b.tar"))) == 2


def header(name: bytes, size: bytes, kind: bytes, data: bytes = b"", magic=b"ustar\x0000") -> bytes:
    """One raw member with a valid checksum."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[257:265] = magic
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block) + data + b"\0" * (-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while length != len(b"%d" % length) + len(body):
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def pax(data: bytes, kind: bytes = b"x") -> bytes:
    return header(b"pax", b"%o" % len(data), kind, data)


FILE = header(b"a.png", b"1", b"0", b"1")
END = b"\0" * 1024


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (header(b"a", b"\x80" + b"\xff" * 11, b"0"), DataError, "runs past the end"),
        (header(b"a", b"\xff" * 12, b"0"), DataError, "no valid size"),
        (header(b"a", b"-7", b"0"), DataError, "no valid size"),
        (header(b"a", b"9", b"0"), DataError, "no valid size"),
        (pax(record(b"size", b"-1")) + FILE, DataError, "header 2 has no valid size"),
        (pax(record(b"size", b"9" * 30)) + FILE, DataError, "header 2 has no valid size"),
        (pax(record(b"size", b"9" * 15)) + FILE, DataError, "runs past the end"),
        (pax(record(b"path", b"../x")) + FILE, UnsafeInputError, "none inside a folder"),
        (pax(record(b"path", b"x"), b"g") + FILE, DataError, "all members one name"),
        (pax(record(b"size", b"0"), b"g") + FILE, DataError, "all members one name"),
        (pax(record(b"GNU.sparse.major", b"1")) + FILE, DataError, "is sparse: pack"),
        (header(b"a", b"0", b"S"), DataError, "is sparse: pack"),
        (pax(b"0 a=b\n") + FILE, DataError, "damaged pax header"),
        (pax(b"-6 a=b\n") + FILE, DataError, "damaged pax header"),
        (pax(b"99 a=b\n") + FILE, DataError, "damaged pax header"),
        (pax(b"5 a=b\n") + FILE, DataError, "damaged pax header"),
        (pax(b"123456789 a=b\n") + FILE, DataError, "damaged pax header"),
        (pax(b"\0" * 20) + FILE, DataError, "damaged pax header"),
        (header(b"", b"0", b"0"), UnsafeInputError, "none inside a folder"),
        (
            header(b"a", b"%o" % (MAX_HEADER + 1), b"L", b"x" * (MAX_HEADER + 1)),
            UnsafeInputError,
            "longer than 1,048,576 bytes",
        ),
    ],
)
def test_lying_headers_are_refused(tmp_path: Path, data: bytes, error, message):
    (tmp_path / "a.tar").write_bytes(data + END)
    with pytest.raises(error, match=message):
        list(entries(tmp_path / "a.tar"))


def test_harmless_extensions_change_nothing(tmp_path: Path):
    data = (
        pax(record(b"comment", b"by git"), b"g")
        + pax(record(b"mtime", b"1.5") + record(b"LIBARCHIVE.xattr.a=b", b"\xff\0"))
        + header(b"././@LongLink", b"4", b"K", b"abc\0")
        + FILE
        + header(b"v7.txt", b" 1 ", b"\0", b"2", magic=b"\0" * 8)
        + header(b"what.png", b"1", b"Q", b"3")
        + header(b"unreal", b"1", b"0", b"4", magic=b"ustar  \0")
    )
    (tmp_path / "a.tar").write_bytes(data + END + b"trailing")
    found = list(entries(tmp_path / "a.tar"))
    assert [entry.member.name for entry in found] == ["a.png", "v7.txt", "what.png", "unreal"]
    assert [entry.problem for entry in found] == [None, None, "of an unknown kind", None]
    assert [read_member(entry.member) for entry in found] == [b"1", b"2", b"3", b"4"]


def test_a_size_of_the_extended_header_is_the_members_not_the_next_headers(tmp_path: Path):
    data = pax(record(b"size", b"1")) + header(b"././@LongLink", b"5", b"L", b"long\0") + FILE
    (tmp_path / "a.tar").write_bytes(data + END)
    assert listed(tmp_path / "a.tar") == [("long", b"1")]


def test_a_member_is_read_only_where_the_archive_still_has_it(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", {"a": b"1234"})
    (entry,) = entries(tar)
    assert read_member(entry.member) == b"1234"
    tar.write_bytes(tar.read_bytes()[:514])
    with pytest.raises(OSError, match="ends before it does"):
        read_member(entry.member)
    with pytest.raises(OSError, match="too large: more than 268,435,456 bytes"):
        read_member(TarMember(tar, "a", 0, 2**28 + 1))


WHOLE = io.BytesIO()
with tarfile.open(fileobj=WHOLE, mode="w", format=tarfile.PAX_FORMAT) as _tar:
    add(_tar, "ä/0.png", b"1" * 600)
    add(_tar, "n" * 200 + ".txt", b"2")
    add(_tar, "0.json", b"{}")
VALID = WHOLE.getvalue()[:8192]


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=8),
    st.integers(0, len(VALID)),
    st.booleans(),
)
def test_mutated_archives_raise_nothing_but_our_errors(tmp_path_factory, changes, length, repair):
    data = bytearray(VALID)
    for position, value in changes:
        data[position] = value
        block = position // 512 * 512
        if repair and data[block + 257 : block + 262] == b"ustar":  # or all stops at the checksum
            data[block + 148 : block + 156] = b" " * 8
            data[block + 148 : block + 155] = b"%06o\0" % sum(data[block : block + 512])
    path = tmp_path_factory.getbasetemp() / "mutated.tar"
    path.write_bytes(data if length % 2 else data[:length])
    with contextlib.suppress(DataError, UnsafeInputError):
        for entry in entries(path):
            assert entry.problem or entry.member.offset + entry.member.size <= len(data)
