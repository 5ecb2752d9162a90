"""The reports that runs leave: pages of their own records, and of nothing else."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sslpurify.checkpoint import read
from sslpurify.compute import PLAIN
from sslpurify.errors import ConfigError
from sslpurify.recipe import EvaluateRecipe, PurifyRecipe
from sslpurify.recipe.reading import validate
from sslpurify.report import Evaluation, pictures_of, to_html
from sslpurify.run import evaluate, purify
from sslpurify.run.bench import see, set_up
from sslpurify.run.evidence import evidence, glimpse, queried
from sslpurify.run.lineage import purification_of
from sslpurify.types import silent
from tests import pico
from tests.conftest import Files
from tests.report.browsing import parsed

NAME = "a<script>alert(1)</script>b.safetensors".replace("/", "\u2215")


@pytest.fixture(scope="module")
def purified(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished purification of a file with a hostile name."""
    folder = tmp_path_factory.mktemp("purified")
    checkpoint = pico.write_checkpoint(folder / NAME)
    tree = {"arch": pico.ARCH, "image_size": pico.SIZE, "checkpoint": checkpoint}
    tree |= {"data": files.clean, "out": folder / "out", "tsc": pico.QUICK}
    purify(validate(PurifyRecipe, tree, "test"), silent)
    return folder / "out"


def recipe(files: Files, checkpoint: Path, **changes: Any) -> EvaluateRecipe:
    tree = {"arch": pico.ARCH, "image_size": pico.SIZE, "checkpoint": checkpoint}
    tree |= {"train": files.train, "test": files.test, "knn": {"k": 5}}
    return validate(EvaluateRecipe, tree | changes, "test")


def contents(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The record, and the parts of the page, which is that of the record and the pictures."""
    record = json.loads((folder / "report.json").read_text("utf-8"))
    html = (folder / "report.html").read_text("utf-8")
    assert html == to_html(record, pictures_of(folder))
    page = parsed(html)
    assert page.all("script") == []
    return record, [link["href"].removeprefix("#") for link in page.all("a")]


def test_a_purification_leaves_what_it_knows(purified: Path) -> None:
    record, parts = contents(purified)
    assert parts == ["curves", "permutations", "limits", "configuration", "provenance"]
    assert NAME in parsed((purified / "report.html").read_text("utf-8")).text
    for stage in (1, 2):
        for kind in ("png", "svg"):
            assert (purified / f"profile-round-1-stage-{stage}.{kind}").stat().st_size > 1000
    assert record["stages"][-1]["displacement"]


def test_an_evaluation_of_its_checkpoint_shows_both(
    purified: Path, files: Files, tmp_path: Path
) -> None:
    (checkpoint,) = purified.glob("*.purified.safetensors")
    wanted = recipe(
        files,
        checkpoint,
        before=files.encoder,
        reference=files.encoder,
        trigger="white-square",
        target="red",
        out=tmp_path / "out",
    )
    answer = evaluate(wanted, silent)
    assert answer.data["report"] == str(tmp_path / "out" / "report.html")
    record, parts = contents(tmp_path / "out")
    assert parts[:5] == ["verdict", "map", "neighbours", "trigger", "classes"]
    assert parts[5:7] == ["curves", "permutations"]
    assert Evaluation.from_json(record).to_json()["results"] == answer.data["results"]
    assert list(record["map"]["encoders"]) == ["before", "after"]
    assert len(record["neighbours"]["strips"]) == 4
    for strip in record["neighbours"]["strips"]:
        assert strip["class"] != "red"
        assert list(strip["nearest"]) == ["before", "after", "reference"]
        assert strip["nearest"]["before"] == strip["nearest"]["reference"]
        assert [len(found) for found in strip["nearest"].values()] == [5, 5, 5]
    assert {"config.yaml", "map-before.svg", "map-after.png"} <= pico.trees(tmp_path / "out")


def test_without_a_bank_the_neighbours_are_other_test_images(files: Files, tmp_path: Path) -> None:
    wanted = recipe(files, files.encoder, trigger="white-square", target="red", train=files.test)
    bench = replace(set_up(wanted, pico.SIZE, ["knn"], silent), bank=None)
    network = pico.encoder().load(pico.state())
    seen = {"after": glimpse(see(network, bench, PLAIN, "after", silent), bench)}
    found = evidence(seen, bench, tmp_path)["neighbours"]
    assert found["among"] == "test"
    assert [strip["row"] for strip in found["strips"]] == queried(bench).tolist()
    for strip in found["strips"]:
        assert strip["row"] not in [near["row"] for near in strip["nearest"]["after"]]


def test_a_trigger_is_told_in_words_and_by_the_hash_of_its_file(
    files: Files, tmp_path: Path
) -> None:
    written = f"{{kind: patch, rows: [0, 1], columns: [0, 1], {400 * ' '}color: [1, 0, 0]}}"
    (tmp_path / "mark.yaml").write_text(written)
    records = list[dict[str, Any]]()
    for number, trigger in enumerate((written, str(tmp_path / "mark.yaml"))):
        out = tmp_path / f"{number}"
        evaluate(recipe(files, files.encoder, trigger=trigger, target="red", out=out), silent)
        records.append(contents(out)[0])
    inside, beside = (record["trigger"] for record in records)
    assert inside["description"] == beside["description"]
    assert (inside["sha256"], beside["name"]) == (None, "mark.yaml")
    assert beside["sha256"] == hashlib.sha256(written.encode()).hexdigest()
    assert records[0]["origin"]["trigger"] == records[1]["origin"]["trigger"]
    page = parsed((tmp_path / "0" / "report.html").read_text("utf-8"))
    assert " ".join(page.text.split()).count(inside["description"]) >= 2


def test_without_a_trigger_there_is_none_on_the_page(files: Files, tmp_path: Path) -> None:
    evaluate(recipe(files, files.encoder, out=tmp_path / "out"), silent)
    record, parts = contents(tmp_path / "out")
    assert parts == ["verdict", "map", "classes", "limits", "configuration", "provenance"]
    assert (record["trigger"], record["neighbours"]) == (None, None)


def test_a_folder_in_use_is_left_alone(files: Files, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        evaluate(recipe(files, files.encoder, out=tmp_path), silent)
    with pytest.raises(ConfigError, match="only read"):
        evaluate(recipe(files, files.encoder, out=files.test / "out"), silent)
    assert pico.trees(tmp_path) == {"mine.txt"}


def test_an_evaluation_that_fails_leaves_nothing(files: Files, tmp_path: Path) -> None:
    wanted = recipe(files, files.encoder, trigger="badnets", target="x", out=tmp_path / "out")
    with pytest.raises(ConfigError, match="no such class"):
        evaluate(wanted, silent)
    assert pico.trees(tmp_path) == set()


@pytest.mark.parametrize("harm", ["other weights", "no stages", "no json", "too large a number"])
def test_a_report_beside_a_checkpoint_is_believed_only_of_its_own_weights(
    harm: str, purified: Path, tmp_path: Path
) -> None:
    (made,) = purified.glob("*.purified.safetensors")
    file = tmp_path / "x.safetensors"
    file.write_bytes(made.read_bytes())
    text = (purified / "report.json").read_text("utf-8")
    (tmp_path / "report.json").write_text(text, "utf-8")
    assert len(purification_of(read(file))["stages"]) == len(json.loads(text)["stages"])
    report = json.loads(text)
    match harm:
        case "other weights":
            report["sha256"] = "0" * 64
        case "no stages":
            del report["stages"]
        case _:
            report["stages"][0]["seconds"] = 12345.5
    said = json.dumps(report)
    if harm == "too large a number":
        said = said.replace("12345.5", "1e999")
    (tmp_path / "report.json").write_text("{" if harm == "no json" else said, "utf-8")
    assert purification_of(read(file)) == {}
