from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from sslpurify.attacks import (
    CtrlSettings,
    first_of_class,
    members,
    poison_images,
    read_trigger,
    share_of_class,
)
from sslpurify.data import from_pixels, read_images, read_pairs
from sslpurify.errors import ConfigError, DataError
from tests import pico

TRIGGER = read_trigger("sig", pico.SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of seven images, and a class whose name begins as another's."""
    root = pico.write_classes(tmp_path_factory.mktemp("poisoning") / "train", 7)
    pico.write_images(root / "red deer", 2)
    return root


def test_the_members_of_a_class_are_those_in_its_folder(folder: Path):
    images = read_images(folder, None)
    inside = members(images, folder, "red")
    assert [images.sources[row].parent.name for row in inside.tolist()] == ["red"] * 7
    assert inside.tolist() == sorted(inside.tolist())
    captioned = read_pairs(folder, None, kind="class-folders").images
    again = members(captioned, folder, "red").tolist()
    assert [captioned.sources[row].parent.name for row in again] == ["red"] * 7
    few = read_images(folder, None, limit=9, seed=3)
    names = [source.parent.name for source in few.sources]
    assert members(few, folder, "red").tolist() == [n for n, at in enumerate(names) if at == "red"]


def test_images_without_class_folders_cannot_be_poisoned(folder: Path):
    for images in (read_images(folder, None), from_pixels(torch.zeros(2, 3, 8, 8).byte())):
        with pytest.raises(ConfigError, match=r"no folder 'mauve' .* a folder for each class"):
            members(images, folder, "mauve")


def test_ctrl_takes_the_first_of_the_class():
    inside = torch.tensor([3, 5, 8, 9])
    assert first_of_class(inside, 50, 0.0599).tolist() == [3, 5]
    assert first_of_class(inside, 50, 0.08).tolist() == [3, 5, 8, 9]
    with pytest.raises(ConfigError, match="poisons 5, but the target class has 4: lower it"):
        first_of_class(inside, 50, 0.1)
    with pytest.raises(ConfigError, match="poisons 0, but the target class has 4: raise it"):
        first_of_class(inside, 50, 0.01)


def test_a_share_is_a_function_of_the_seed_and_a_smaller_one_gives_some_of_it():
    inside = torch.arange(100, 200)
    few, many = share_of_class(inside, 0.1, 3), share_of_class(inside, 0.5, 3)
    assert (len(few), len(many)) == (10, 50)
    assert set(few.tolist()) < set(many.tolist()) < set(inside.tolist())
    assert many.tolist() == sorted(many.tolist())
    assert torch.equal(many, share_of_class(inside, 0.5, 3))
    assert not torch.equal(many, share_of_class(inside, 0.5, 4))
    assert torch.equal(share_of_class(inside, 1.0, 0), inside)
    with pytest.raises(ConfigError, match="poisons none"):
        share_of_class(inside, 0.001, 0)


@pytest.mark.parametrize("memory_limit", [2**30, 0])
def test_poisoned_images_carry_the_trigger_in_8_bits_and_the_others_do_not(folder, memory_limit):
    images = read_images(folder, None, memory_limit=memory_limit)
    assert (images.pixels is None) == (memory_limit == 0)
    rows = torch.tensor([1, 4, 22])
    everything = torch.arange(len(images))
    before, digest = images.batch(everything), images.digest()
    poisoned = poison_images(images, rows, TRIGGER)
    after = poisoned.batch(everything)
    marked = torch.zeros(len(images), dtype=torch.bool)
    marked[rows] = True
    assert torch.equal(after[~marked], before[~marked])
    expected = (TRIGGER(before[rows]) * 255).round() / 255
    torch.testing.assert_close(after[rows], expected, atol=1e-6, rtol=0)
    assert not torch.equal(after[rows], before[rows])
    # The clean set is what it was; the poisoned one keeps the names.
    assert torch.equal(images.batch(everything), before)
    assert images.digest() == digest != poisoned.digest()
    assert poisoned.named(rows) == images.named(rows)
    assert poison_images(images, rows, TRIGGER).digest() == poisoned.digest()


def test_both_ways_of_keeping_images_give_the_same_set(folder: Path):
    rows = torch.tensor([0, 7])
    sets = [
        poison_images(read_images(folder, None, memory_limit=limit), rows, TRIGGER).digest()
        for limit in (2**30, 0)
    ]
    assert sets[0] == sets[1]


def test_a_trigger_of_another_size_is_refused(folder: Path):
    with pytest.raises(DataError, match="sig is 32 × 32, the images are 16 × 16"):
        poison_images(read_images(folder, None), torch.tensor([0]), read_trigger("sig", 32))


def test_settings_have_no_other_keys():
    for bad in ({"ratio": 0}, {"ratio": 1.1}, {"share": 0.1}, {"training": {"epoch": 1}}):
        with pytest.raises(ValidationError):
            CtrlSettings.model_validate(bad)
