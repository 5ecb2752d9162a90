import json
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from sslpurify.errors import ConfigError, DataError, UnsafeInputError
from sslpurify.recipe import EvaluateRecipe
from sslpurify.recipe.reading import validate
from sslpurify.run import aggregate, evaluate
from sslpurify.types import silent
from tests import pico
from tests.conftest import Files


@pytest.fixture(scope="module")
def told(files: Files, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The JSON of evaluations of runs with three seeds."""
    folder = tmp_path_factory.mktemp("encoders")
    answers = list[dict[str, Any]]()
    for seed in range(3):
        tree = {
            "arch": pico.ARCH,
            "image_size": pico.SIZE,
            "before": files.encoder,
            "checkpoint": pico.write_checkpoint(folder / f"{seed}.safetensors", 5 + seed),
            "reference": files.encoder,
            "seed": seed,
            "train": files.train,
            "test": files.test,
            "trigger": "white-square",
            "target": "red",
            "probes": "knn,linear",
            "knn": {"k": 5},
            **({"out": folder / "measured"} if seed == 2 else {}),
        }
        answers.append(evaluate(validate(EvaluateRecipe, tree, "test"), silent).data)
    return answers


def written(folder: Path, *answers: Any) -> list[Path]:
    files = [folder / f"{number}.json" for number in range(len(answers))]
    for file, answer in zip(files, answers, strict=True):
        file.write_text(answer if isinstance(answer, str) else json.dumps(answer))
    return files


def test_mean_and_spread_of_every_rate_over_the_runs(
    told: list[dict[str, Any]], tmp_path: Path
) -> None:
    files = written(tmp_path, *told)
    answer = aggregate(files)
    after = [each["results"][2]["attack_success_rate"]["value"] for each in told]
    row = next(row for row in answer.data["results"] if row["which"] == "after")
    assert row["probe"] == "knn"
    assert row["attack_success_rate"] == {
        "mean": pytest.approx(sum(after) / 3),
        "sd": pytest.approx(stdev(after)),
        "least": min(after),
        "most": max(after),
        "runs": 3,
        "n": 12,
    }
    changes = [each["changes"][1]["clean_accuracy"]["value"] for each in told]
    assert answer.data["changes"][1]["probe"] == "linear"
    assert answer.data["changes"][1]["clean_accuracy"]["mean"] == pytest.approx(sum(changes) / 3)
    assert answer.data["files"] == [str(file) for file in files]
    assert "after less before" in answer.text
    json.dumps(answer.data, allow_nan=False)


def test_one_encoder_that_all_share_is_one_run(told: list[dict[str, Any]], tmp_path: Path) -> None:
    answer = aggregate(written(tmp_path, *told))
    (row,) = [r for r in answer.data["results"] if (r["which"], r["probe"]) == ("reference", "knn")]
    assert (row["clean_accuracy"]["runs"], row["clean_accuracy"]["sd"]) == (1, None)
    assert row["clean_accuracy"]["mean"] == told[0]["results"][4]["clean_accuracy"]["value"]


def test_the_seed_makes_another_run_of_a_probe_that_draws(
    told: list[dict[str, Any]], tmp_path: Path
) -> None:
    few = [changed(each, recipe=each["origin"]["recipe"] + "shots: 2\n") for each in told[:2]]
    again = changed(few[0], seed=5)
    answer = aggregate(written(tmp_path, few[0], few[1], again))
    runs = {row["which"]: row["clean_accuracy"]["runs"] for row in answer.data["results"]}
    assert runs == {"before": 3, "after": 3, "reference": 3}


def changed(answer: dict[str, Any], **origin: Any) -> dict[str, Any]:
    return {**answer, "origin": {**answer["origin"], **origin}}


def test_what_cannot_be_compared_is_not_put_together(
    told: list[dict[str, Any]], tmp_path: Path
) -> None:
    first, second, _ = told
    recipe = second["origin"]["recipe"].replace("target: red", "target: blue")
    others = [
        (changed(second, recipe=recipe), "they differ in target"),
        (changed(second, images={"test": "other"}), "they differ in images"),
        ({**second, "results": second["results"][:2]}, "they differ in rows"),
        (changed(second, trigger="another"), "they differ in trigger"),
        (changed(first, seed=8), r"0\.json measured the same, and nothing here draws by the seed"),
    ]
    for other, says in others:
        with pytest.raises(ConfigError, match=rf"1\.json .*{says}"):
            aggregate(written(tmp_path, first, other))
    with pytest.raises(ConfigError, match="at least two"):
        aggregate(written(tmp_path, first))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"results": 3}', '{"seconds": NaN}'])
def test_what_is_no_evaluation_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0\.json: is no output of `evaluate --json`"):
        aggregate(written(tmp_path, text, text))


def test_hostile_files_are_refused(told: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(UnsafeInputError, match="nested"):
        aggregate(written(tmp_path, told[0], '{"a":' * 9999))
    with pytest.raises(DataError, match="no such file"):
        aggregate([tmp_path / "a", tmp_path / "b"])
    bomb = changed(told[1], recipe="a: &x [1]\nb: *x\n")
    with pytest.raises(UnsafeInputError, match="aliases"):
        aggregate(written(tmp_path, told[0], bomb))
    with pytest.raises(DataError, match=r"1\.json"):
        aggregate(written(tmp_path, told[0], changed(told[1], recipe="[1]")))
