import csv
import json
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from sslpurify.data import CaptionedImages, from_pixels, pairs_kind, read_images, read_pairs
from sslpurify.errors import ConfigError, DataError
from tests.data.pictures import write_picture
from tests.data.tars import add

CLASSES = ("barn_owl", "t-shirt")


def write_classes(folder: Path, count: int = 6) -> list[tuple[Path, str]]:
    """Class folders of noise, and each file with its caption in the order they are read in."""
    pairs = []
    for number, name in enumerate(CLASSES):
        for i in range(count):
            path = folder / name / f"{i}.png"
            write_picture(path, 100 * number + i)
            pairs.append((path, f"a photo of a {name.replace('_', ' ')}."))
    return pairs


def write_csv(path: Path, pairs: list[tuple[Path, str]], separator: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(["filepath", "title"])
        writer.writerows((image.relative_to(path.parent), text) for image, text in pairs)
    return path


def write_tars(folder: Path, pairs: list[tuple[Path, str]], shards: int = 2) -> Path:
    """Shards whose captions lie in .txt and .json members by turns."""
    folder.mkdir()
    step = -(-len(pairs) // shards)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:04}.tar", "w") as tar:
            for i, (image, text) in enumerate(pairs[shard * step : (shard + 1) * step]):
                add(tar, f"{i:06}.png", image.read_bytes())
                if i % 2:
                    add(tar, f"{i:06}.json", json.dumps({"caption": text, "id": i}).encode())
                else:
                    add(tar, f"{i:06}.txt", f"{text}\n".encode())
                add(tar, f"{i:06}.cls", b"3")
    return folder


@pytest.fixture
def three(tmp_path: Path) -> dict[str, Path]:
    """The same pairs, stored in each of the three ways."""
    pairs = write_classes(tmp_path / "classes")
    return {
        "csv": write_csv(tmp_path / "pairs.csv", pairs),
        "webdataset": write_tars(tmp_path / "shards", pairs),
        "class-folders": tmp_path / "classes",
    }


@pytest.mark.parametrize("limit", [None, 1, 7, 12])
@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_all_ways_of_storing_give_the_same_pairs(three, limit, memory_limit):
    read = {
        kind: read_pairs(path, None, limit=limit, seed=3, memory_limit=memory_limit)
        for kind, path in three.items()
    }
    for pairs in read.values():
        assert pairs.captions == read["csv"].captions
        assert pairs.images.digest() == read["csv"].images.digest()
        assert len(pairs) == len(pairs.images) == (limit or 12)
        assert (pairs.images.pixels is None) == (memory_limit == 0)


def test_everything_is_read_in_order_with_its_own_caption(three):
    pairs = read_pairs(three["webdataset"], 8)
    images = read_images(three["class-folders"], 8)
    assert pairs.images.digest() == images.digest()
    assert pairs.captions == tuple(
        (f"a photo of a {name}.",) for name in ("barn owl", "t-shirt") for _ in range(6)
    )


def test_there_is_nowhere_to_put_a_label(three):
    pairs = read_pairs(three["class-folders"], 8)
    assert set(vars(pairs)) == {"images", "captions"}


def test_the_draw_depends_on_the_seed_alone_and_nests(three):
    def drawn(limit: int, seed: int) -> list[str]:
        pairs = read_pairs(three["class-folders"], 8, limit=limit, seed=seed)
        return [str(source) for source in pairs.images.sources]

    assert drawn(5, 0) == drawn(5, 0)
    assert drawn(5, 0) != drawn(5, 1)
    assert set(drawn(3, 0)) < set(drawn(5, 0)) < set(drawn(11, 0))
    assert drawn(5, 0) == sorted(drawn(5, 0))


def test_a_limit_decodes_little_more_than_it_asks_for(tmp_path: Path):
    pairs = write_classes(tmp_path / "classes", 100)
    table = write_csv(tmp_path / "pairs.csv", pairs)
    counted = []
    read = read_pairs(table, 8, limit=50, listener=lambda step: counted.append(step.images))
    assert len(read) == 50
    assert sum(counted) == 51


def test_unreadable_pairs_do_not_make_a_draw_smaller(three):
    broken = three["class-folders"] / CLASSES[0] / "2.png"
    broken.write_bytes(b"")
    for kind in ("csv", "class-folders"):
        for limit in range(1, 12):
            pairs = read_pairs(three[kind], 8, limit=limit, max_bad_fraction=0.5)
            assert len(pairs) == limit
            assert broken not in pairs.images.sources
        with pytest.raises(DataError, match="limit is 12, but only 11 can be read"):
            read_pairs(three[kind], 8, limit=12, max_bad_fraction=0.5)
        with pytest.raises(DataError, match=r"(?s)1 of 12 images .* 8\.33 % .*2\.png"):
            read_pairs(three[kind], 8)


def test_captions_stay_with_their_images_when_some_are_unreadable(three):
    whole = read_pairs(three["csv"], 8)
    broken = three["class-folders"] / CLASSES[0] / "5.png"
    broken.write_bytes(b"")
    rest = read_pairs(three["csv"], 8, max_bad_fraction=0.1)
    assert rest.captions == whole.captions[:5] + whole.captions[6:]
    assert [str(item.source) for item in rest.images.unreadable] == [str(broken)]


def test_every_template_is_a_caption(three):
    pairs = read_pairs(three["class-folders"], 8, templates=("one {}", "{} two"), limit=1)
    (captions,) = pairs.captions
    assert captions in ((f"one {name}", f"{name} two") for name in ("barn owl", "t-shirt"))
    for templates in ((), ("none",), ("{} and {}",)):
        with pytest.raises(ConfigError, match="template"):
            read_pairs(three["class-folders"], 8, templates=templates)


def test_the_kind_is_seen_from_the_path(three, tmp_path: Path):
    for kind, path in three.items():
        assert pairs_kind(path) == kind
    assert pairs_kind(tmp_path / "a-{0000..0003}.tar") == "webdataset"
    assert pairs_kind(tmp_path / "PAIRS.TSV") == "csv"
    (tmp_path / "empty").mkdir()
    for path, message in (
        (tmp_path / "empty", "no captions for images"),
        (tmp_path / "nope", "does not exist"),
        (three["class-folders"] / CLASSES[0] / "0.png", "is no table"),
    ):
        with pytest.raises(DataError, match=message):
            pairs_kind(path)
    (three["webdataset"] / "folder").mkdir()
    with pytest.raises(DataError, match="both tar archives and folders"):
        pairs_kind(three["webdataset"])


def test_limits_that_cannot_be_met_are_errors(three):
    for kind, path in three.items():
        with pytest.raises(ConfigError, match="limit of 0"):
            read_pairs(path, 8, limit=0)
        with pytest.raises(DataError, match="limit is 13, but there are only 12 images"):
            read_pairs(path, 8, limit=13, kind=kind)


def test_images_of_different_sizes_need_a_size(three):
    Image.new("RGB", (9, 9)).save(three["class-folders"] / CLASSES[1] / "3.png")
    with pytest.raises(DataError, match=r"11 of 8×8.*1 of 9×9 \(3\.png\)"):
        read_pairs(three["csv"], None)
    assert read_pairs(three["csv"], 5).images.size == 5


def test_folders_can_be_left_out(three):
    write_picture(three["class-folders"] / CLASSES[0] / "out/6.png", 0)
    exclude = [three["class-folders"] / CLASSES[0] / "out"]
    assert len(read_pairs(three["class-folders"], 8)) == 13
    assert len(read_pairs(three["class-folders"], 8, exclude=exclude)) == 12


def test_images_and_captions_are_as_many():
    images = from_pixels(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="2 images, 1 sets of captions"):
        CaptionedImages(images, (("one",),))


def test_a_folder_name_that_is_no_text_is_no_caption(tmp_path: Path):
    name = b"\xff".decode("utf-8", "surrogateescape")
    write_picture(tmp_path / name / "0.png", 0)
    with pytest.raises(DataError, match=r"class folder .*\\udcff: the name has half a surrogate"):
        read_pairs(tmp_path, 8)
    (tmp_path / name).rename(tmp_path / "_")
    with pytest.raises(DataError, match="the name is empty"):
        read_pairs(tmp_path, 8)
