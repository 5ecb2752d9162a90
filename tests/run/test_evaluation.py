import logging
from pathlib import Path

import pytest
import torch

from sslpurify.errors import ConfigError, DataError
from sslpurify.probes import Hits, Measurement
from sslpurify.recipe import EvaluateRecipe
from sslpurify.recipe.reading import validate
from sslpurify.run import evaluate
from sslpurify.run.bench import class_index, needed, set_up
from sslpurify.run.evaluation import rows_of
from sslpurify.types import Step, silent
from tests import pico
from tests.conftest import Files


def recipe(files: Files, **changes: object) -> EvaluateRecipe:
    tree = {
        "arch": pico.ARCH,
        "image_size": pico.SIZE,
        "checkpoint": files.encoder,
        "train": files.train,
        "test": files.test,
        "knn": {"k": 5},
    }
    return validate(EvaluateRecipe, tree | changes, "test")


def test_every_set_is_embedded_once_however_many_probes_ask(files: Files) -> None:
    steps: list[Step] = []
    evaluate(recipe(files, probes="knn,linear", trigger="badnets", target="red"), steps.append)
    embedded = [step.stage for step in steps if step.stage.startswith("after")]
    assert embedded == ["after · bank", "after · test", "after · triggered"]


def test_limits_take_as_many_of_each_class(files: Files) -> None:
    bench = set_up(recipe(files, train_per_class=4, test_per_class=2), pico.SIZE, ["knn"], silent)
    assert torch.bincount(bench.bank.labels).tolist() == [4, 4, 4]
    assert torch.bincount(bench.test.labels).tolist() == [2, 2, 2]


def test_a_class_is_found_by_name_only() -> None:
    assert class_index("b", ("a", "b")) == 1
    assert class_index(None, ("a", "b")) == -1
    with pytest.raises(ConfigError, match="--target 1: no such class; there are: a, b"):
        class_index("1", ("a", "b"))


def measured(correct: int) -> Measurement:
    return Measurement(Hits(torch.arange(100) < correct, torch.zeros(100, dtype=torch.long)))


def test_an_accuracy_near_chance_is_a_loud_warning(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    bench = set_up(recipe(files), pico.SIZE, ["knn"], silent)
    with caplog.at_level(logging.WARNING, logger="sslpurify"):
        rows_of("before", {"knn": measured(90)}, bench)
        assert caplog.messages == []
        rows_of("before", {"knn": measured(36)}, bench)
    (message,) = caplog.messages
    assert "'before' is 36.0 %" in message
    assert "looks exactly like a purified one" in message


def test_a_head_in_one_file_and_not_in_the_other_changes_nothing(
    files: Files, tmp_path: Path
) -> None:
    with_head = pico.write_checkpoint(tmp_path / "head.safetensors", head=True)
    answer = evaluate(recipe(files, before=with_head), silent)
    before, after = answer.data["results"]
    assert before["clean_accuracy"] == after["clean_accuracy"]


def test_few_shots_are_what_every_probe_learns_from(files: Files) -> None:
    steps: list[Step] = []
    few = recipe(files, probes="knn,linear,mlp", shots=2, knn={"k": 6}, mlp={"epochs": 1})
    assert len(evaluate(few, steps.append).data["results"]) == 3
    assert sum(step.images for step in steps if step.stage == "after · bank") == 6
    bench = set_up(few, pico.SIZE, ["knn"], silent).few(2)
    assert torch.bincount(needed(bench.bank, "a bank").labels).tolist() == [2, 2, 2]


def test_more_neighbours_than_a_bank_are_refused_before_anything_is_embedded(files: Files) -> None:
    steps: list[Step] = []
    with pytest.raises(DataError, match=r"k = 5 .* holds 3 images: take a smaller k \(knn.k\)"):
        evaluate(recipe(files, shots=1), steps.append)
    assert not [step for step in steps if step.stage.startswith("after")]
