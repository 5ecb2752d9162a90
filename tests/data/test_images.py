import hashlib
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sslpurify.data import (
    ImageError,
    epoch_batches,
    from_pixels,
    read_images,
    read_labelled,
    subset,
)
from sslpurify.data.decode import decode_image
from sslpurify.data.loading import decode_all, load
from sslpurify.errors import ConfigError, DataError
from sslpurify.types import Step, silent
from tests.data.pictures import write_picture
from tests.data.tars import png, write_tar


def make(folder: Path, count: int, size: int = 8) -> torch.Tensor:
    pictures = [write_picture(folder / f"{i // 7:02}/{i:03}.png", i, size) for i in range(count)]
    return torch.from_numpy(np.stack(pictures))


def everything(images) -> torch.Tensor:
    return images.batch(torch.arange(len(images)))


def test_images_are_loaded_once_in_order(tmp_path: Path):
    expected = make(tmp_path, 200)
    images = read_images(tmp_path, 8)
    for path in images.sources:
        path.unlink()
    assert len(images) == 200
    assert images.pixels is not None
    batch = images.batch(torch.tensor([3, 199, 3]))
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch, expected[[3, 199, 3]] / 255, rtol=0, atol=0)


def test_streaming_gives_the_same_bytes(tmp_path: Path):
    make(tmp_path, 150, size=9)
    limit = 150 * 3 * 6 * 6
    memory = read_images(tmp_path, 6, memory_limit=limit)
    stream = read_images(tmp_path, 6, memory_limit=limit - 1)
    assert memory.pixels is not None
    assert stream.pixels is None
    assert torch.equal(everything(memory), everything(stream))
    assert memory.digest() == stream.digest()
    chosen = torch.tensor([149, 2, 2, 70])
    parts = [subset(images, chosen) for images in (memory, stream)]
    assert torch.equal(everything(parts[0]), everything(parts[1]))
    assert parts[0].sources == parts[1].sources == tuple(memory.sources[i] for i in chosen.tolist())
    assert torch.equal(everything(parts[0]), memory.batch(chosen))
    assert len(stream.batch(torch.arange(0))) == 0


def test_a_file_lost_while_streaming_is_an_error(tmp_path: Path):
    make(tmp_path, 5)
    stream = read_images(tmp_path, 8, memory_limit=0)
    stream.sources[3].write_bytes(b"")
    with pytest.raises(ImageError, match=r"003\.png"):
        everything(stream)


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_unreadable_files_are_listed_and_the_rest_keeps_its_order(tmp_path, memory_limit):
    expected = make(tmp_path, 200)
    bad = [0, 77, 199]
    paths = read_images(tmp_path, 8).sources
    for index in bad:
        paths[index].write_bytes(paths[index].read_bytes()[:90])
    (tmp_path / "outside.png").symlink_to("/")
    images = read_images(tmp_path, 8, max_bad_fraction=0.02, memory_limit=memory_limit)
    good = [i for i in range(200) if i not in bad]
    assert torch.equal(everything(images), expected[good] / 255)
    assert images.sources == tuple(paths[i] for i in good)
    assert [item.source.name for item in images.unreadable] == [
        "outside.png", "000.png", "077.png", "199.png"
    ]  # fmt: skip
    assert "truncated" in images.unreadable[1].reason
    with pytest.raises(DataError, match=r"4 of 201 images .*1\.99 % \(at most 1 % may") as error:
        read_images(tmp_path, 8, memory_limit=memory_limit)
    assert [line.split(": ")[0][-11:] for line in str(error.value).splitlines()[1:]] == [
        "outside.png", "/00/000.png", "/11/077.png", "/28/199.png"
    ]  # fmt: skip
    assert "allow more with max_bad_fraction" in str(error.value)


def test_max_bad_fraction_is_inclusive(tmp_path: Path):
    make(tmp_path, 100)
    (tmp_path / "00/000.png").write_bytes(b"")
    assert len(read_images(tmp_path, 8)) == 99
    (tmp_path / "00/001.png").write_bytes(b"")
    with pytest.raises(DataError, match="2 of 100"):
        read_images(tmp_path, 8)


def test_nothing_to_read_is_one_clear_error(tmp_path: Path):
    with pytest.raises(DataError, match=r"has no images \(0 files of other kinds"):
        read_images(tmp_path, 8)
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=r"has no images \(1 files of other kinds"):
        read_images(tmp_path, None)
    with pytest.raises(DataError, match=r"a\.txt is a file"):
        read_images(tmp_path / "a.txt", 8)
    with pytest.raises(DataError, match="b does not exist"):
        read_images(tmp_path / "b", 8)
    (tmp_path / "c.png").touch()
    for size in (8, None):
        with pytest.raises(
            DataError, match=r"(?s)none of 1 .*c\.png: not an image of a known format"
        ):
            read_images(tmp_path, size, max_bad_fraction=1.0)
    (tmp_path / "c.png").unlink()
    (tmp_path / "c.png").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match=r"c\.png: symbolic link that leaves"):
        read_images(tmp_path, None, max_bad_fraction=1.0)


def test_the_images_own_size_is_taken_when_all_agree(tmp_path: Path):
    expected = make(tmp_path, 10, size=11)
    (tmp_path / "bad.png").touch()
    images = read_images(tmp_path, None, max_bad_fraction=0.5)
    assert images.size == 11
    assert torch.equal(everything(images), expected / 255)
    write_picture(tmp_path / "other.png", 0, 12)
    with pytest.raises(DataError, match=r"10 of 11×11.*1 of 12×12 .other\.png.*--force-image-size"):
        read_images(tmp_path, None, max_bad_fraction=0.5)
    assert read_images(tmp_path, 11, max_bad_fraction=0.5).size == 11


def test_an_own_size_that_is_no_square_is_an_error(tmp_path: Path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (6, 4)).save(tmp_path / name)
    with pytest.raises(DataError, match=r"not squares of one size \(2 of 6×4 \(a\.png\)\)"):
        read_images(tmp_path, None)


def test_a_size_below_one_is_refused(tmp_path: Path):
    make(tmp_path, 1)
    with pytest.raises(ConfigError, match="image size 0"):
        read_images(tmp_path, 0)


def test_output_folders_can_be_left_out(tmp_path: Path):
    make(tmp_path / "data", 3)
    write_picture(tmp_path / "data/out/profile.png", 99)
    assert len(read_images(tmp_path / "data", 8, exclude=[tmp_path / "data/out"])) == 3


def test_a_limit_draws_from_the_seed_alone_nests_and_decodes_little_more(tmp_path: Path):
    make(tmp_path, 120)
    few, more, whole = (read_images(tmp_path, 8, limit=n, seed=3) for n in (10, 40, None))
    assert set(few.sources) < set(more.sources) < set(whole.sources)
    assert list(few.sources) == sorted(few.sources)
    assert few.sources != whole.sources[:10]
    assert read_images(tmp_path, 8, limit=10, seed=4).sources != few.sources
    rows = [whole.sources.index(source) for source in few.sources]
    assert torch.equal(everything(few), whole.batch(torch.tensor(rows)))
    for path in set(whole.sources) - set(more.sources):
        path.write_bytes(b"")
    steps: list[Step] = []
    assert read_images(tmp_path, 8, limit=10, seed=3, listener=steps.append).sources == few.sources
    assert sum(step.images for step in steps) == 11
    with pytest.raises(DataError, match="limit is 121, but there are only 120 images"):
        read_images(tmp_path, 8, limit=121)
    with pytest.raises(ConfigError, match="limit of 0"):
        read_images(tmp_path, 8, limit=0)


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_unreadable_files_do_not_make_a_draw_smaller(tmp_path: Path, memory_limit: int):
    expected = make(tmp_path, 60)
    paths = read_images(tmp_path, 8).sources
    first = read_images(tmp_path, 8, limit=30).sources
    first[4].write_bytes(b"")
    images = read_images(tmp_path, 8, limit=30, max_bad_fraction=0.1, memory_limit=memory_limit)
    assert len(images) == 30
    assert set(first) - set(images.sources) == {first[4]}
    assert [item.source for item in images.unreadable] == [first[4]]
    assert torch.equal(everything(images), expected[[paths.index(p) for p in images.sources]] / 255)


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_pixels_do_not_depend_on_the_number_of_threads(tmp_path: Path, threads: int):
    expected = make(tmp_path, 150, size=8)
    paths = read_images(tmp_path, 8).sources
    assert torch.equal(decode_all(paths, 8, threads), expected)
    paths[70].write_bytes(b"")
    loaded = load(paths, 8, 2**30, silent, threads)
    assert loaded.pixels is not None
    assert torch.equal(loaded.pixels, expected[[i for i in range(150) if i != 70]])
    assert [item.source for item in loaded.unreadable] == [paths[70]]
    with pytest.raises(ImageError, match=r"070\.png"):
        decode_all(paths, 8, threads)


MEMORY = """
import re, sys
from pathlib import Path
import torch
from sslpurify.data import read_images, read_pairs

root, status = Path(sys.argv[1]), Path("/proc/self/status")
peak = lambda: int(re.search("VmHWM:[^0-9]*([0-9]+) kB", status.read_text())[1]) * 1024
read_images(root / "folder", 384, limit=8).digest()  # threads and buffers are there
before, digests = peak(), []
for limit in (0, 2**31):
    digests.append(read_images(root / "folder", 384, memory_limit=limit).digest())
    for name in () if limit else ("folder", "pairs.csv", "pairs.tar"):
        digests.append(read_pairs(root / name, 384, memory_limit=limit).images.digest())
    print((peak() - before) / (500 * 3 * 384 * 384))
print(*digests)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
def test_a_set_above_the_limit_never_lies_in_memory_whatever_its_source(tmp_path: Path):
    files = {f"{i:03}.png": png(i) for i in range(500)}
    (tmp_path / "folder/sub").mkdir(parents=True)
    for name, data in files.items():
        (tmp_path / "folder/sub" / name).write_bytes(data)
    table = "".join(f"folder/sub/{name},x\n" for name in files)
    (tmp_path / "pairs.csv").write_text("filepath,title\n" + table)
    write_tar(tmp_path / "pairs.tar", files | {f"{name[:3]}.txt": b"x" for name in files})
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    batchwise, at_once, *digests = done.stdout.split()
    assert float(batchwise) < 0.5, done.stdout
    assert float(at_once) > 0.9, done.stdout
    assert len(digests) == 5
    assert len(set(digests)) == 1


def test_the_listener_hears_of_every_image(tmp_path: Path):
    make(tmp_path, 150)
    steps: list[Step] = []
    read_images(tmp_path, 8, listener=steps.append)
    assert sum(step.images for step in steps) == 150
    assert [step.step for step in steps] == list(range(1, steps[0].steps + 1))


def test_stopping_does_not_wait_for_the_files_still_queued(tmp_path: Path, monkeypatch):
    make(tmp_path, 1)
    decoded: list[Path] = []

    def slow(path: Path, size: int) -> torch.Tensor:
        decoded.append(path)
        time.sleep(0.001)
        return decode_image(path, size)

    def stop(_: Step) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sslpurify.data.loading.decode_image", slow)
    with pytest.raises(KeyboardInterrupt):
        load([tmp_path / "00/000.png"] * 64 * 60, 8, 0, stop)
    assert len(decoded) < 64 * 30


def test_digest_sees_every_pixel_and_the_order_but_not_the_place(tmp_path: Path):
    pixels = make(tmp_path / "a", 20)
    make(tmp_path / "b/c", 20)
    reference = read_images(tmp_path / "a", 8).digest()
    assert read_images(tmp_path / "b", 8).digest() == reference
    assert from_pixels(pixels).digest() == reference
    changed = pixels.clone()
    changed[19, 2, 7, 7] ^= 1
    different = [from_pixels(changed), from_pixels(pixels.flip(0)), from_pixels(pixels[:19])]
    different.append(from_pixels(pixels.reshape(80, 3, 4, 4)))
    assert len({images.digest() for images in different} | {reference}) == 5
    slow = hashlib.sha256(b"20 8\n" + pixels.numpy().tobytes()).hexdigest()
    assert reference == slow


def test_a_digest_is_the_same_in_one_piece_or_many(monkeypatch):
    pixels = torch.randint(0, 256, (7, 3, 5, 5), dtype=torch.uint8)
    slow = hashlib.sha256(b"7 5\n" + pixels.numpy().tobytes()).hexdigest()
    for chunk in (1, 3 * 5 * 5 * 2, 2**20):
        monkeypatch.setattr("sslpurify.data.images._CHUNK", chunk)
        assert from_pixels(pixels).digest() == slow


def write_classes(folder: Path, **counts: int) -> None:
    for number, (name, count) in enumerate(counts.items()):
        for i in range(count):
            write_picture(folder / name / f"sub{i % 2}/{i}.png", 1000 * number + i)


def test_labels_follow_the_sorted_class_names(tmp_path: Path):
    write_classes(tmp_path, dog=3, ant=2, _10=1, _2=4)
    data = read_labelled(tmp_path, 8)
    assert data.classes == ("_10", "_2", "ant", "dog")
    assert data.labels.tolist() == [0] + [1] * 4 + [2] * 2 + [3] * 3
    for path, label in zip(data.images.sources, data.labels.tolist(), strict=True):
        assert path.parent.parent.name == data.classes[label]


def test_limit_per_class_is_a_fixed_nested_choice(tmp_path: Path):
    write_classes(tmp_path, a=30, b=3, c=30)
    few, more, whole = (read_labelled(tmp_path, 8, limit_per_class=n) for n in (5, 12, None))
    assert few.labels.bincount().tolist() == [5, 3, 5]
    assert more.labels.bincount().tolist() == [12, 3, 12]
    assert set(few.images.sources) < set(more.images.sources) < set(whole.images.sources)
    assert read_labelled(tmp_path, 8, limit_per_class=5).images.sources == few.images.sources
    order = {path: i for i, path in enumerate(whole.images.sources)}
    assert all(order[a] < order[b] for a, b in pairwise(few.images.sources))
    assert list(whole.images.sources) == sorted(whole.images.sources, key=Path.as_posix)
    assert (
        few.images.sources[:5] != whole.images.sources[:5]
    )  # no first n in the order of the names
    with pytest.raises(ConfigError, match="limit of 0"):
        read_labelled(tmp_path, 8, limit_per_class=0)


def test_evaluation_never_leaves_an_image_out(tmp_path: Path):
    write_classes(tmp_path, a=120, b=120)
    (tmp_path / "b/broken.png").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"(?s)1 images cannot be read.*b/broken\.png: not an image"
    ):
        read_labelled(tmp_path, 8)
    (tmp_path / "b/broken.png").unlink()
    (tmp_path / "b/broken.png").symlink_to(tmp_path / "a/sub0/0.png")
    with pytest.raises(DataError, match="leaves the folder"):
        read_labelled(tmp_path, 8)


def test_an_evaluation_names_every_unreadable_image_of_every_class_at_once(tmp_path: Path):
    write_classes(tmp_path, a=2, b=2, c=2)
    (tmp_path / "a/link.png").symlink_to("/etc/hostname")
    for name in ("b", "c"):
        (tmp_path / name / "broken.png").write_bytes(b"x")
    (tmp_path / "only").mkdir()
    (tmp_path / "only/broken.png").write_bytes(b"x")
    with pytest.raises(DataError, match="4 images cannot be read") as error:
        read_labelled(tmp_path, 8)
    named = [line.split(":")[0] for line in str(error.value).splitlines()[1:]]
    assert named == [
        f"  {tmp_path}/{name}"
        for name in ("a/link.png", "b/broken.png", "c/broken.png", "only/broken.png")
    ]
    for number in range(20):
        (tmp_path / f"b/broken{number:02}.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"24 images cannot") as error:
        read_labelled(tmp_path, 8)
    lines = str(error.value).splitlines()
    assert len(lines) == 12
    assert lines[-1] == "  and 14 more"


def test_labels_go_by_name_when_a_class_is_missing_or_empty(tmp_path: Path):
    write_classes(tmp_path / "train", a=3, b=3, c=3)
    write_classes(tmp_path / "test", a=2, c=2)
    train = read_labelled(tmp_path / "train", 8)
    with pytest.raises(DataError, match=r"test differs .*: it lacks b\. Labels go by"):
        read_labelled(tmp_path / "test", 8, classes=train.classes)
    (tmp_path / "test/b").mkdir()
    for limit in (1, None):
        with pytest.raises(DataError, match="test/b has no images"):
            read_labelled(tmp_path / "test", 8, classes=train.classes, limit_per_class=limit)
    write_classes(tmp_path / "test", d=1)
    with pytest.raises(DataError, match=r": it alone has d\. Labels"):
        read_labelled(tmp_path / "test", 8, classes=train.classes)
    (tmp_path / "test/d").rename(tmp_path / "elsewhere")
    write_picture(tmp_path / "test/b/0.png", 5)
    test = read_labelled(tmp_path / "test", 8, classes=train.classes)
    assert [
        (path.relative_to(tmp_path / "test").parts[0], test.classes[label])
        for path, label in zip(test.images.sources, test.labels.tolist(), strict=True)
    ] == [("a", "a"), ("a", "a"), ("b", "b"), ("c", "c"), ("c", "c")]
    assert test.labels.tolist() == [0, 0, 1, 2, 2]


def test_the_choice_within_a_class_does_not_depend_on_the_other_classes(tmp_path: Path):
    write_classes(tmp_path, a=20, b=20, c=20)
    three = read_labelled(tmp_path, 8, limit_per_class=4)
    (tmp_path / "b").rename(tmp_path.parent / f"{tmp_path.name}-b")
    two = read_labelled(tmp_path, 8, limit_per_class=4)
    assert two.images.sources == tuple(
        path for path in three.images.sources if path.relative_to(tmp_path).parts[0] != "b"
    )
    assert two.labels.tolist() == [0] * 4 + [1] * 4


def test_a_class_without_images_is_an_error_not_a_shift(tmp_path: Path):
    write_classes(tmp_path, a=2, c=2)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/readme.txt").touch()
    with pytest.raises(DataError, match=r"class folder .*b has no images"):
        read_labelled(tmp_path, 8)


def test_images_beside_the_class_folders_are_an_error(tmp_path: Path):
    write_classes(tmp_path, a=2)
    write_picture(tmp_path / "loose.png", 1)
    with pytest.raises(DataError, match=r"loose\.png lies outside"):
        read_labelled(tmp_path, 8)


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**40), st.booleans())
def test_an_epoch_visits_every_image_once(count: int, batch_size: int, seed: int, drop: bool):
    if drop and count < batch_size:
        with pytest.raises(DataError, match="do not fill one batch"):
            epoch_batches(count, batch_size, seed, "s", 0)
        return
    batches = list(epoch_batches(count, batch_size, seed, "s", 0, drop_last=drop))
    sizes = [len(batch) for batch in batches]
    visited = torch.cat(batches).tolist()
    assert len(set(visited)) == len(visited)
    assert set(visited) <= set(range(count))
    assert all(size == batch_size for size in sizes[: None if drop else -1])
    assert count - len(visited) < (batch_size if drop else 1)


def test_order_is_a_function_of_seed_stream_and_epoch_alone():
    def order(*key: object) -> tuple[int, ...]:
        return tuple(torch.cat(list(epoch_batches(50, 10, *key))).tolist())

    assert order(1, "a", 0) == order(1, "a", 0)
    keys = [(1, "a", 0), (1, "a", 1), (1, "b", 0), (2, "a", 0)]
    assert len({order(*key) for key in keys}) == 4
    state = torch.random.get_rng_state()
    order(3, "a", 0)
    assert torch.equal(state, torch.random.get_rng_state())


def test_bad_batch_sizes_are_errors_before_the_first_batch():
    with pytest.raises(ConfigError, match="batch size 0"):
        epoch_batches(5, 0, 0, "s", 0)
    with pytest.raises(DataError, match="3 images do not fill one batch of 512"):
        epoch_batches(3, 512, 0, "s", 0)
    with pytest.raises(DataError, match="0 images"):
        epoch_batches(0, 4, 0, "s", 0, drop_last=False)
