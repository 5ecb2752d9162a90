"""Tables, tars, names, triggers and images from strangers: refused with the documented code.

Each goes through the command line, whose last line must say what it refused.
"""

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from tests import pico, pico_clip
from tests.conftest import Files
from tests.data.tars import add, png, write_tar
from tests.data.test_decode import png_header
from tests.hostile.corpus import Call

Cli = Callable[..., Result]
Maker = Callable[[Path, str], Path]
"""From a folder and a shell command that leaves the canary to the path to name."""
HEADER = b"filepath,title\n"


def table(content: bytes) -> Maker:
    """A table beside one image and a link to another outside."""

    def make(folder: Path, _: str) -> Path:
        data = pico.write_images(folder / "table", 1)
        (data / "link.png").symlink_to(pico.write_images(folder / "secret", 1) / "000.png")
        (data / "pairs.csv").write_bytes(HEADER + content)
        return data / "pairs.csv"

    return make


def tar(*members: tuple[str, bytes], **fields: object) -> Maker:
    """An archive of members, the last of which has these fields."""

    def make(folder: Path, _: str) -> Path:
        with tarfile.open(folder / "pairs.tar", "w") as archive:
            for place, (name, content) in enumerate(members, start=1):
                add(archive, name, content, **(fields if place == len(members) else {}))
        return folder / "pairs.tar"

    return make


def compressed(folder: Path, _: str) -> Path:
    """A gigabyte and more of zeros would be made of this by a program that unpacks it."""
    with tarfile.open(folder / "pairs.tar.gz", "w:gz") as archive:
        add(archive, "1.txt", bytes(2**22))
    return folder / "pairs.tar.gz"


def bomb(folder: Path, _: str) -> Path:
    images = pico.write_images(folder / "images", 3)
    png_header(images / "bomb.png", 60_000, 60_000)
    return images


def bomb_in_a_tar(folder: Path, _: str) -> Path:
    image = png_header(folder / "bomb.png", 60_000, 60_000)
    return write_tar(folder / "pairs.tar", {"1.png": image.read_bytes(), "1.txt": b"one"})


PAIR = (("1.png", png(1)), ("1.txt", b"one"))
DATA: dict[str, tuple[Maker, int, str]] = {
    "table upwards": (table(b"../secret/000.png,one\n"), 3, "row 2: '../secret/000.png' leaves"),
    "table absolute": (table(b"/etc/hostname,one\n"), 3, "row 2: '/etc/hostname' leaves"),
    "table through a link": (table(b"link.png,one\n"), 3, "row 2: 'link.png' leaves"),
    "table with NUL": (table(b"0\0.png,one\n"), 3, r"row 2: '0\x00.png' leaves"),
    "table with an escape": (table(b"../\x1b[2J.png,one\n"), 3, r"'../\x1b[2J.png' leaves"),
    "table without an end": (table(b'000.png,"' + b"x" * 2**18), 5, "longer than 131,072 bytes"),
    "table of other bytes": (table(b"000.png,\xff\n"), 5, "not UTF-8 at byte 23"),
    "table of an empty caption": (table(b"000.png, \n"), 5, "row 2: the caption is empty"),
    "tar upwards": (tar(*PAIR, ("../2.png", b"")), 3, "the name of member 3, '../2.png'"),
    "tar absolute": (tar(*PAIR, ("/2.png", b"")), 3, "the name of member 3, '/2.png'"),
    "tar twice": (tar(*PAIR, *PAIR), 5, "two members of one name"),
    "tar of a link": (
        tar(PAIR[1], ("1.png", b""), type=tarfile.SYMTYPE, linkname="/etc/hostname"),
        5,
        "a symbolic link, not a file",
    ),
    "tar of a long name": (
        tar(*PAIR, ("2.png", b""), pax_headers={"comment": "x" * 2**20}),
        3,
        "longer than 1,048,576 bytes",
    ),
    "tar compressed": (compressed, 5, "is compressed (gzip)"),
    "tar of a bomb": (bomb_in_a_tar, 5, "too large"),
    "images with a bomb": (bomb, 5, "bomb.png: too large"),
}
"""What to name with --data, the code, and what the refusal names."""


@pytest.mark.parametrize("name", DATA)
def test_data_is_refused_by_name(name: str, cli: Cli, files: Files, tmp_path: Path) -> None:
    make, code, named = DATA[name]
    path = make(tmp_path, "")
    before = pico.trees(tmp_path)
    shape = ("--arch", pico.ARCH, "--force-image-size", pico.SIZE)
    done = cli("purify", files.encoder, *shape, "--data", path, "--out", "out")
    refused(done, code, path, named)
    assert pico.trees(tmp_path) == before


def refused(done: Result, code: int, path: Path, named: str) -> None:
    """The last line names the file and what is wrong with it, and there is no answer."""
    assert done.exit_code == code, done.stderr
    *_, line = done.stderr.splitlines()
    assert line.startswith("sslpurify: ")
    assert path.name in line
    assert named in line
    assert line.isprintable()
    assert done.stdout == ""


def npz(folder: Path, command: str) -> Path:
    """A trigger of Python objects, as ``np.load`` with pickles allowed would make them."""
    objects = np.array([Call(command)], dtype=object)
    np.savez(folder / "trigger.npz", t=objects, tm=objects)
    return folder / "trigger.npz"


def npz_bomb(folder: Path, _: str) -> Path:
    np.savez_compressed(folder / "trigger.npz", t=np.zeros((65, 2**20), np.uint8))
    return folder / "trigger.npz"


def described(text: str) -> Maker:
    def make(folder: Path, command: str) -> Path:
        (folder / "trigger.yaml").write_text(text.replace("COMMAND", command))
        return folder / "trigger.yaml"

    return make


def picture_bomb(folder: Path, _: str) -> Path:
    return png_header(folder / "trigger.png", 60_000, 60_000)


TRIGGERS: dict[str, tuple[Maker, int, str]] = {
    "npz of objects": (npz, 3, "'t' holds pickled Python objects"),
    "npz bomb": (npz_bomb, 3, "'t' has more than 64 MiB"),
    "picture bomb": (picture_bomb, 5, "too large"),
    "YAML tag": (
        described("kind: !!python/object/apply:os.system ['COMMAND']\n"),
        3,
        "python/object/apply:os.system",
    ),
    "YAML object": (described("!!python/object/new:posix.system [COMMAND]\n"), 3, "posix.system"),
    "YAML aliases": (described("a: &a [x]\nb: *a\n"), 3, "line 2: aliases"),
    "YAML twice": (described("kind: patch\nkind: image\n"), 5, "'kind' already stands in line 1"),
    "YAML upwards": (described("kind: image\nfile: ../secret.png\n"), 3, "../secret.png"),
}
"""What to name with --trigger, the code, and what the refusal names."""


@pytest.mark.parametrize("name", TRIGGERS)
def test_triggers_are_refused_by_name(name: str, cli: Cli, files: Files, tmp_path: Path) -> None:
    make, code, named = TRIGGERS[name]
    Image.new("RGB", (pico.SIZE, pico.SIZE)).save(tmp_path / "secret.png")
    (tmp_path / "given").mkdir()
    path = make(tmp_path / "given", f"touch {tmp_path / 'canary'}")
    shape = ("--arch", pico.ARCH, "--force-image-size", pico.SIZE)
    probing = (*shape, "--train", files.train, "--test", files.test, "--set", "knn.k=5")
    done = cli("evaluate", files.encoder, *probing, "--trigger", path, "--target", "red")
    refused(done, code, path, named)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("content", "name", "named"),
    [
        (b"a\nb\n\x1b[2Jc", "n.txt", r"line 3: the class name '\x1b[2Jc' has unprintable"),
        (b"a\nb\nc\0", "n.txt", "unprintable"),
        (b"a\nb\n\xff", "n.txt", "not UTF-8 at byte 4"),
        (b"a" * (2**20 + 1), "n.txt", "longer than 1,048,576 bytes"),
        (b"a\r\nb\r\na\r\n", "n.txt", "line 3: 'a' stands in line 1"),
        (b"[" * 100_000, "n.json", "not valid JSON"),
        (b'{"a": "b"}', "n.json", "must be a JSON list of texts"),
    ],
)
def test_class_names_are_refused_by_line(
    content: bytes, name: str, named: str, cli: Cli, files: Files, tmp_path: Path
) -> None:
    arch, model = pico_clip.write(tmp_path, "vit")
    (tmp_path / name).write_bytes(content)
    zeroshot = ("--test", files.test, "--probe", "zeroshot", "--force-image-size", pico_clip.SIZE)
    done = cli("evaluate", model, "--arch", arch, *zeroshot, "--classnames", tmp_path / name)
    refused(done, 5, tmp_path / name, named)
