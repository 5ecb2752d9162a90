import json
import tarfile
from pathlib import Path

import pytest
import torch

from sslpurify.data import ImageError, read_pairs
from sslpurify.data.captions import Pair
from sslpurify.data.shards import Shards, find_shards
from sslpurify.errors import DataError, UnsafeInputError
from tests.data.tars import add, png, write_tar


def picked(*tars: Path) -> list[object]:
    shards = Shards(tars)
    return shards.pick(range(len(shards)))


def captions(*tars: Path) -> list[str]:
    return [item.captions[0] if isinstance(item, Pair) else item.reason for item in picked(*tars)]


def test_members_of_one_name_are_one_pair_wherever_they_stand(tmp_path: Path):
    tar = write_tar(
        tmp_path / "a.tar",
        {
            "x/1.txt": b"one",
            "x/2.JPG": png(2),
            "README": b"",
            "1.png": png(3),
            "x/1.png": png(1),
            "__meta__": b"{}",
            "1.txt": "\ufeff drei \r\n".encode(),
            "x/2.cls": b"7",
            "x/._2.png": b"Mac OS X",
            "x/2.json": json.dumps({"caption": "two", "url": "…"}).encode(),
            "x/3.txt": b"no image",
        },
    )
    assert captions(tar) == ["one", "two", "drei"]
    assert [str(item.source) for item in picked(tar)] == [
        f"{tar}:x/1.png",
        f"{tar}:x/2.JPG",
        f"{tar}:1.png",
    ]


def test_text_comes_before_json_and_json_like_text_stays_text(tmp_path: Path):
    members = {"1.png": png(1), "1.json": b'{"caption": "json"}', "1.txt": b"123"}
    members |= {"2.png": png(2), "2.txt": b"NaN", "3.png": png(3), "3.txt": b'{"caption": "x"}'}
    assert captions(write_tar(tmp_path / "a.tar", members)) == ["123", "NaN", '{"caption": "x"}']


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("1.cls", b"", "no caption (a .txt or .json member of the same name)"),
        ("1.txt", b"", "the caption is empty"),
        ("1.txt", b" \n", "the caption is empty"),
        ("1.txt", b"ab\xff", "the caption is not UTF-8 at byte 2"),
        ("1.txt", b"x" * (2**16 + 1), "the caption is longer than 65,536 characters"),
        ("1.txt", b"x" * (2**18 + 1), "the caption is longer than 262,144 bytes"),
        ("1.json", b"[" * 200_000, "the caption is not valid JSON"),
        ("1.json", b'{"caption": ' + b"9" * 5000 + b"}", "the caption is not valid JSON"),
        ("1.json", b'{"caption": "a", "caption": "b"}', "a key stands twice"),
        ("1.json", b'{"caption": "\\ud800"}', "half a surrogate pair"),
        ("1.json", b'{"caption": 3}', 'no text under "caption"'),
        ("1.json", b'["caption"]', 'no text under "caption"'),
        ("1.json", b"", "not valid JSON"),
        ("1.jpg", png(2), "1.jpg has the same name"),
    ],
)
def test_a_pair_that_lacks_something_is_unreadable_with_its_reason(tmp_path, name, data, reason):
    tar = write_tar(
        tmp_path / "a.tar", {"0.png": png(0), "0.txt": b"0", "1.png": png(1), name: data}
    )
    good, bad = captions(tar)
    assert good == "0"
    assert reason in bad
    pairs = read_pairs(tar, 4, max_bad_fraction=0.5)
    assert pairs.captions == (("0",),)
    assert len(pairs.images.unreadable) == 1
    with pytest.raises(DataError, match="1 of 2 images"):
        read_pairs(tar, 4)


def test_links_are_never_followed(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "0.png", png(0))
        add(tar, "0.txt", b"0")
        add(tar, "1.png", type=tarfile.LNKTYPE, linkname="0.png")
        add(tar, "1.txt", b"1")
        add(tar, "2.png", png(2))
        add(tar, "2.txt", type=tarfile.SYMTYPE, linkname="/etc/hostname")
    assert captions(tmp_path / "a.tar") == [
        "0",
        "a hard link, not a file",
        "the caption is a symbolic link, not a file",
    ]


@pytest.mark.parametrize("second", ["x/1.png", "./x/1.png", "x/1.PNG", "x/1.txt"])
def test_a_pair_with_two_members_of_one_name_is_unreadable_the_others_are_not(tmp_path, second):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("x/0.png", "x/1.png", "x/2.png"):
            add(tar, name, png(1))
            add(tar, name.replace("png", "txt"), name.encode())
        add(tar, second, png(2) if second[-1].lower() == "g" else b"another")
    zero, one, two = captions(tmp_path / "a.tar")
    assert (zero, two) == ("x/0.png", "x/2.png")
    assert "two members of one name" in one
    with pytest.raises(
        DataError, match=r"(?s)1 of 3 images .*a\.tar:(\./)?x/1\.\w+: .*two members"
    ):
        read_pairs(tmp_path / "a.tar", 4)
    pairs = read_pairs(tmp_path / "a.tar", 4, max_bad_fraction=0.4)
    assert pairs.captions == (("x/0.png",), ("x/2.png",))


def test_a_truncated_archive_is_refused_whatever_may_be_left_out(tmp_path: Path):
    members = {f"{i}.{s}": png(i) if s == "png" else b"x" for i in range(5) for s in ("png", "txt")}
    tar = write_tar(tmp_path / "a.tar", members)
    whole = tar.read_bytes()
    tar.write_bytes(whole[: whole.index(png(4)) + 20])
    with pytest.raises(DataError, match=r"a\.tar: header 9 .* truncated; fetch or pack it again"):
        read_pairs(tar, 4, max_bad_fraction=1.0)


def test_the_number_of_members_is_bounded(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("sslpurify.data.shards.MAX_MEMBERS", 5)
    tars = [
        write_tar(tmp_path / f"{i}.tar", {"0.png": b"", "0.txt": b"", "0.cls": b""})
        for i in range(3)
    ]
    assert len(Shards(tars[:2])) == 2
    with pytest.raises(DataError, match="more than 5 images and captions"):
        Shards(tars)


def test_same_names_in_different_archives_are_different_pairs(tmp_path: Path):
    tars = [
        write_tar(tmp_path / f"{i}.tar", {"0.png": png(i), "0.txt": b"%d" % i}) for i in range(3)
    ]
    assert captions(*tars) == ["0", "1", "2"]
    assert read_pairs(tmp_path, 4).captions == (("0",), ("1",), ("2",))
    part = read_pairs(tmp_path / "{1..2}.tar", None)
    assert part.captions == (("1",), ("2",))
    with pytest.raises(DataError, match=r"3\.tar: does not exist"):
        read_pairs(tmp_path / "{1..3}.tar", None)


def test_ranges_are_spelled_out_with_their_zeros(tmp_path: Path):
    assert [path.name for path in find_shards(tmp_path / "a-{008..011}.tar")] == [
        "a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"
    ]  # fmt: skip
    literal = tmp_path / "{0..1}.tar"
    literal.touch()
    assert find_shards(literal) == (literal,)
    for name in ("{3..2}.tar", "x{0..100000}.tar", "{0..999999999}.tar"):
        with pytest.raises(DataError, match=r"is no range of at most 100,000"):
            find_shards(tmp_path / name)
    with pytest.raises(DataError, match=r"has no \.tar files"):
        find_shards(write_nothing(tmp_path / "empty"))


def write_nothing(folder: Path) -> Path:
    folder.mkdir()
    (folder / ".hidden.tar").touch()
    return folder


def test_an_archive_without_pairs_is_an_error(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", {"0.txt": b"0"})
    with pytest.raises(DataError, match="has no images with captions"):
        read_pairs(tar, 4)
    with pytest.raises(UnsafeInputError, match="refused"):
        read_pairs(write_tar(tmp_path / "b.tar", {"../0.png": png(0)}), 4)


def test_images_of_archives_obey_the_rules_of_files(tmp_path: Path):
    members = {"0.png": png(0), "0.txt": b"0", "1.png": png(1)[:60], "1.txt": b"1"}
    members |= {"2.png": b"%PDF-1.7", "2.txt": b"2"}
    tar = write_tar(tmp_path / "a.tar", members)
    pairs = read_pairs(tar, 4, max_bad_fraction=0.9)
    assert [str(item.source)[-5:] for item in pairs.images.unreadable] == ["1.png", "2.png"]
    assert "not an image of a known format" in pairs.images.unreadable[1].reason


def test_archives_stream_and_a_lost_one_is_an_error(tmp_path: Path):
    members = {f"{i}.{s}": png(i) if s == "png" else b"x" for i in range(5) for s in ("png", "txt")}
    tar = write_tar(tmp_path / "a.tar", members)
    kept, stream = (read_pairs(tar, 4, memory_limit=limit).images for limit in (2**30, 0))
    assert torch.equal(stream.batch(torch.tensor([4, 0])), kept.batch(torch.tensor([4, 0])))
    tar.unlink()
    with pytest.raises(ImageError, match=r"a\.tar:4\.png: does not exist"):
        stream.batch(torch.tensor([4]))
