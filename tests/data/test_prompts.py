import contextlib
import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslpurify.data import (
    PromptSet,
    PromptSetName,
    class_prompts,
    names_of_folders,
    prompt_set,
    read_names,
    read_templates,
    vocabulary,
)
from sslpurify.data.prompts import MAX_BYTES
from sslpurify.errors import ConfigError, DataError

SIZES = {
    "cifar10": (10, 18),
    "cifar100": (100, 18),
    "food101": (101, 1),
    "gtsrb": (43, 3),
    "imagenet": (1000, 80),
    "stl10": (10, 2),
    "svhn": (10, 6),
}


@pytest.mark.parametrize("name", get_args(PromptSetName))
def test_published_sets_are_whole(name):
    prompts = prompt_set(name)
    assert (len(prompts.classes), len(set(prompts.templates))) == SIZES[name]
    if name != "imagenet":  # where open_clip calls two classes "missile" and two "sunglasses"
        assert len(set(prompts.classes)) == len(prompts.classes)
        # Sorted names are sorted folders, so a label is the same number in both.
        assert name in ("gtsrb", "svhn") or list(prompts.classes) == sorted(prompts.classes)
    filled = class_prompts(prompts.classes, prompts.templates)
    assert all(
        name in text for name, row in zip(prompts.classes, filled, strict=True) for text in row
    )
    assert not any("{" in text for row in filled for text in row)


def test_the_published_words_of_cifar10():
    prompts = prompt_set("cifar10")
    assert class_prompts(prompts.classes, prompts.templates)[1][:3] == (
        "a photo of a automobile.",
        "a blurry photo of a automobile.",
        "a black and white photo of a automobile.",
    )
    assert prompts.templates[-1] == "a photo of the big {}."


def test_an_unknown_set_is_told_with_those_there_are():
    with pytest.raises(ConfigError, match="no prompt set 'cifar11': there are cifar10, cifar100"):
        prompt_set("cifar11")


def test_a_template_has_one_place_for_the_name():
    assert class_prompts(["{}", "b"], ["{} {0}", "a {}"]) == (("{} {0}", "a {}"), ("b {0}", "a b"))
    for templates in ([], ["none"], ["{} {}"], ["{0}"]):
        with pytest.raises(ConfigError, match="template"):
            class_prompts(["a"], templates)


CIFAR = prompt_set("cifar10")
GTSRB = prompt_set("gtsrb")


def test_folders_find_their_names_in_any_spelling():
    prompts = PromptSet(("barn owl", "T-shirt", "end / de-restriction"), ("{}",))
    folders = ("END_de_restriction", "barn_owl", "t_shirt")
    expected = ("end / de-restriction", "barn owl", "T-shirt")
    assert names_of_folders(prompts, folders) == expected


@pytest.mark.parametrize("width", [1, 2, 5])
def test_numbered_folders_are_the_classes_in_order(width: int):
    folders = sorted(f"{number:0{width}}" for number in range(43))
    names = names_of_folders(GTSRB, folders)
    assert names == tuple(GTSRB.classes[int(folder)] for folder in folders)
    digits = names_of_folders(prompt_set("svhn"), [str(number) for number in range(10)])
    assert digits[3] == "three"


def test_a_name_that_is_a_number_is_the_name():
    prompts = PromptSet(("1", "2", "0"), ("{}",))
    assert names_of_folders(prompts, ("0", "1", "2")) == ("0", "1", "2")


def test_imagenet_folders_are_wordnet_numbers():
    prompts = prompt_set("imagenet")
    folders = sorted(prompts.folders)
    assert names_of_folders(prompts, folders) == prompts.classes
    assert (folders[0], prompts.classes[0]) == ("n01440764", "tench")
    with pytest.raises(DataError, match="10 folders"):
        names_of_folders(prompts, folders[:10])


@pytest.mark.parametrize(
    "folders",
    [
        CIFAR.classes[:9],
        (*CIFAR.classes, "zebra"),
        (*CIFAR.classes[:9], "zebra"),
        (*CIFAR.classes[:9], "AIRPLANE"),
        tuple(str(number) for number in range(1, 11)),
        (*(str(number) for number in range(9)), "00"),
        (),
    ],
)
def test_folders_that_do_not_match_are_told_with_the_names(folders):
    with pytest.raises(
        DataError, match=rf"{len(folders)} folders: .*\. 10 names: airplane, automobile, .*Rename"
    ):
        names_of_folders(CIFAR, folders)


def test_a_long_or_odd_list_is_shown_short():
    with pytest.raises(DataError) as caught:
        names_of_folders(GTSRB, ["a\x1b[2J", *map(str, range(500))])
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_the_vocabulary_is_wide_and_says_nothing_twice():
    prompts = vocabulary()
    assert 1000 < len(prompts) <= 1100
    assert len({prompt.casefold() for prompt in prompts}) == len(prompts)
    assert {"a photo of a tench.", "a photo of a willow tree."} <= set(prompts)


def write(folder: Path, content: str | bytes, name: str = "names.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("cat\ndog, wild\n", "n.txt"),
        ("\ufeffcat\r\n dog, wild ", "n.txt"),
        ("cat\rdog, wild\r", "n"),
        ('["cat", "dog, wild"]', "n.json"),
    ],
)
def test_names_are_read_one_a_line(tmp_path: Path, content: str, name: str):
    assert read_names(write(tmp_path, content, name)) == ("cat", "dog, wild")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("cat\n\ndog", "n.txt", "line 2: empty, where a class name should be"),
        ("cat\n \t\n", "n.txt", "line 2: empty"),
        ("", "n.txt", "is empty: give one class name a line"),
        ("\n\n", "n.txt", "is empty"),
        ("[]", "n.json", "is empty"),
        ("cat\ndog\ncat", "n.txt", "line 3: 'cat' stands in line 1 already"),
        ("c" * 501, "n.txt", "line 1: the class name is longer than 500 characters"),
        ("ca\x1bt", "n.txt", r"line 1: the class name 'ca\\x1bt' has unprintable characters"),
        ("ca\0t", "n.txt", "unprintable"),
        (b"ok\n\xff", "n.txt", "not UTF-8 at byte 3"),
        (b"a" * (MAX_BYTES + 1), "n.txt", "longer than 1,048,576 bytes"),
        ("\n".join(map(str, range(2**16 + 1))), "n.txt", "line 65537: at most 65,536"),
        ("{", "n.json", "not valid JSON"),
        ("[" * 100_000, "n.json", "not valid JSON"),
        ('{"a": 1}', "n.json", "must be a JSON list of texts"),
        ('["a", 1]', "n.json", "must be a JSON list of texts"),
        ('["a", "b", "a"]', "n.json", "line 3: 'a' stands in line 1"),
        (r'["\ud800"]', "n.json", "unprintable"),
        (r'["a\nb"]', "n.json", "unprintable"),
    ],
)
def test_files_of_names_are_distrusted(tmp_path: Path, content, name, message):
    with pytest.raises(DataError, match=message):
        read_names(write(tmp_path, content, name))


def test_missing_files_are_errors(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        read_names(tmp_path / "nope.txt")
    with pytest.raises(DataError, match="not a regular file"):
        read_templates(tmp_path)


def test_templates_name_the_line_that_is_none(tmp_path: Path):
    path = write(tmp_path, "a {}\nthe {}.\n")
    assert read_templates(path) == ("a {}", "the {}.")
    for bad in ("none", "{} or {}", "{0}", "{name}"):
        with pytest.raises(DataError, match=r"line 2: .* must have exactly one {}"):
            read_templates(write(tmp_path, f"a {{}}\n{bad}\n"))


PRINTABLE = st.text(min_size=1, max_size=80).filter(str.isprintable).map(str.strip).filter(bool)


@settings(deadline=None, max_examples=100)
@given(st.lists(PRINTABLE, min_size=1, unique=True), st.sampled_from(["n.txt", "n.json"]))
def test_names_written_are_names_read(tmp_path_factory, names, file):
    content = json.dumps(names) if file == "n.json" else "\n".join(names)
    assert read_names(write(tmp_path_factory.getbasetemp(), content, file)) == tuple(names)


@settings(deadline=None, max_examples=200)
@given(
    st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.sampled_from(["txt", "json"])
)
def test_no_file_of_names_raises_anything_but_our_error(tmp_path_factory, content, suffix):
    path = write(tmp_path_factory.getbasetemp(), content, f"fuzzed.{suffix}")
    for read in (read_names, read_templates):
        with contextlib.suppress(DataError):
            assert all(name.isprintable() for name in read(path))
