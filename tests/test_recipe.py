import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslpurify.errors import ConfigError, UnsafeInputError
from sslpurify.recipe import EvaluateRecipe, PurifyRecipe, check, dump, load
from sslpurify.recipe.reading import validate
from sslpurify.recipe.shipped import find, folder, names, purpose
from sslpurify.strict_yaml import MAX_BYTES, parse

SHIPPED = sorted(folder().rglob("*.yaml"))
MINIMAL = """
verb: purify
arch: simclr/resnet18
checkpoint: encoder.pt
data: clean
out: out
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_says_how_to_run_it(path: Path) -> None:
    check(path)
    assert purpose(path).endswith(".")
    comment = [line for line in path.read_text().splitlines() if line.startswith("#  ")]
    assert any(line.split()[1] in ("sslpurify", "python") for line in comment), "no command"


def test_the_shipped_recipes_are_found_by_name() -> None:
    assert {find(name) for name in names()} == set(SHIPPED)
    assert find("recipes/purify/tsc_simclr_resnet18_cifar10.yaml").is_file()
    with pytest.raises(ConfigError, match=r"no recipe '\.\./secrets'"):
        find("../secrets")


def test_flags_win_over_set_over_file_over_default(recipe: Path) -> None:
    def steps_and_seed(**given: object) -> tuple[int, int]:
        read = load(PurifyRecipe, recipe, **given)
        return read.tsc.steps, read.seed

    default = steps_and_seed()
    recipe.write_text(MINIMAL + "seed: 1\ntsc: {steps: 11}\n")
    assert default != (11, 1)
    assert steps_and_seed() == (11, 1)
    assert steps_and_seed(settings=["seed=2", "tsc.steps=12"]) == (12, 2)
    assert steps_and_seed(settings=["seed=2"], flags={"seed": 3, "out": None}) == (11, 3)


def test_a_resolved_recipe_reads_back_as_itself(recipe: Path, tmp_path: Path) -> None:
    settings = ["tsc.learning_rate=2e-3", "image_mean=[0.1, 0.2, 0.3]", "image_std=[1, 1, 1]"]
    wanted = load(PurifyRecipe, recipe, settings=settings)
    assert wanted.tsc.learning_rate == 0.002
    again = tmp_path / "config.yaml"
    again.write_text(dump(wanted))
    assert check(again) == wanted


def test_all_errors_of_a_file_come_at_once(recipe: Path) -> None:
    recipe.write_text(
        "verb: purify\narhc: x\nseed: soon\ntsc: {stepz: 3, steps: 0, views: {flip: 1}}\n"
    )
    with pytest.raises(ConfigError) as error:
        check(recipe)
    first, *problems = str(error.value).splitlines()
    assert first == f"{recipe}: 9 problems"
    assert set(problems) == {
        "  arch: missing",
        "  checkpoint: missing",
        "  seed: input should be a valid integer, unable to parse string as an integer, not 'soon'",
        "  data: missing",
        "  out: missing",
        "  tsc.steps: input should be greater than or equal to 1, not 0",
        "  tsc.views.flip: unknown key; did you mean tsc.views.flip_probability?",
        "  tsc.stepz: unknown key; did you mean tsc.steps?",
        "  arhc: unknown key; did you mean arch?",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", "a recipe is a mapping"),
        ("verb: bake", "verb must be one of purify, evaluate, attack, pretrain, not 'bake'"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' already stands in line 1"),
        ("t: {a: 1, a: 2}", "line 1: the key 'a' already stands in line 1"),
        ("1: 2", "line 1: the key 1 is not text"),
        ("a: [", "line 1: not valid YAML"),
        ("a: 2021-99-99", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe(recipe: Path, text: str, says: str) -> None:
    recipe.write_text(text)
    with pytest.raises(ConfigError, match=says.replace("[", r"\[")):
        check(recipe)


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x",
        "a: !!python/object/apply:os.system ['touch canary']",
        "a: !!python/name:os.system",
        "a: !secret 1",
        "[" * 50 + "]" * 50,
        "# " + "x" * MAX_BYTES,
    ],
    ids=["alias", "apply", "name", "tag", "depth", "size"],
)
def test_what_asks_for_more_than_plain_data_is_refused(recipe: Path, text: str) -> None:
    recipe.write_text(text)
    with pytest.raises(UnsafeInputError, match=str(recipe)):
        check(recipe)


def test_a_device_is_not_read_for_ever(tmp_path: Path) -> None:
    with pytest.raises((ConfigError, UnsafeInputError)):
        load(PurifyRecipe, Path("/dev/zero"))
    with pytest.raises(ConfigError, match="cannot be read"):
        load(PurifyRecipe, tmp_path)


DATA = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(),
    lambda inner: st.dictionaries(st.sampled_from(["arch", "tsc", "t", "x"]), inner),
    max_leaves=5,
)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(["arch", "data", "seed", "tsc", "x"]), DATA))
def test_incomplete_data_is_one_of_our_errors(tree: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        validate(PurifyRecipe, tree, "here")


@given(st.text())
def test_any_text_is_data_or_one_of_our_errors(text: str) -> None:
    with contextlib.suppress(ConfigError, UnsafeInputError):
        parse(text)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("seed", "write it as key=value"),
        ("=1", "write it as key=value"),
        ("tsc..t=1", "write it as key=value"),
        ("seed.x=1", "seed: input should be a valid integer"),
        ("arch.name=x", "arch is not a block"),
        ("seed=[", "--set seed=\\["),
    ],
)
def test_a_bad_override_names_itself(recipe: Path, setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(PurifyRecipe, recipe, settings=[setting])


def test_a_class_may_be_called_3_but_not_yes(recipe: Path) -> None:
    common = MINIMAL.replace("purify", "evaluate").replace(
        "data: clean\nout: out", "train: a\ntest: b"
    )
    recipe.write_text(common + "trigger: badnets\ntarget: 3\n")
    assert load(EvaluateRecipe, recipe).target == "3"
    recipe.write_text(common + "trigger: badnets\ntarget: yes\n")
    with pytest.raises(ConfigError, match="target: reads as true or false; put it in quotes"):
        load(EvaluateRecipe, recipe)


@pytest.mark.parametrize("written", ["{kind: wanet, strength: 2}", "'{kind: wanet, strength: 2}'"])
def test_a_trigger_may_be_described_in_a_recipe(recipe: Path, written: str) -> None:
    common = MINIMAL.replace("purify", "evaluate").replace(
        "data: clean\nout: out", "train: a\ntest: b"
    )
    recipe.write_text(f"{common}trigger: {written}\ntarget: truck\n")
    found = load(EvaluateRecipe, recipe)
    assert found.trigger == "{kind: wanet, strength: 2}"
    recipe.write_text(dump(found))
    assert load(EvaluateRecipe, recipe) == found


def test_a_recipe_of_another_verb_is_refused(recipe: Path) -> None:
    with pytest.raises(ConfigError, match="verb: input should be 'evaluate', not 'purify'"):
        load(EvaluateRecipe, recipe)
