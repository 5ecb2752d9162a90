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
from sslpurify.data.loading import load
from sslpurify.errors import ConfigError, DataError
from sslpurify.types import Step
from tests.data.pictures import write_picture


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
    with pytest.raises(
        DataError, match=r"4 of 201 images .* \(at most 1\.0% may be\).*outside\.png: "
    ):
        read_images(tmp_path, 8, memory_limit=memory_limit)


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
        with pytest.raises(DataError, match=r"c\.png: not an image of a known format"):
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
    with pytest.raises(DataError, match=r"1 images cannot be read.*b/broken\.png: not an image"):
        read_labelled(tmp_path, 8)
    (tmp_path / "b/broken.png").unlink()
    (tmp_path / "b/broken.png").symlink_to(tmp_path / "a/sub0/0.png")
    with pytest.raises(DataError, match="leaves the folder"):
        read_labelled(tmp_path, 8)


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
