import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from sslpurify.recipe import DemoRecipe, load
from sslpurify.report import pictures_of, to_html
from sslpurify.run.demonstration import EMBEDDED, demo, read_demo_images
from sslpurify.run.loading import read_weights
from sslpurify.types import silent
from tests import pico
from tests.report.browsing import parsed


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    """What the package carries, at pico size."""
    folder = tmp_path / "embedded"
    folder.mkdir()
    pico.write_checkpoint(folder / "victim.safetensors", 1)
    pico.write_checkpoint(folder / "reference.safetensors", 0, head=True)
    draw = np.random.default_rng(0)
    shades = np.repeat([40, 120, 200], 8)

    def grey() -> np.ndarray:
        noise = draw.normal(0, 20, (len(shades), pico.SIZE, pico.SIZE))
        return np.clip(shades[:, None, None] + noise, 0, 255).astype(np.uint8)

    labels = np.repeat(np.arange(3, dtype=np.uint8), 8)
    np.savez_compressed(
        folder / "images.npz",
        clean=grey(),
        bank=grey(),
        bank_labels=labels,
        test=grey(),
        test_labels=labels,
    )
    recipe = {
        "verb": "demo",
        "arch": pico.ARCH,
        "image_size": pico.SIZE,
        "classes": ["dark", "middle", "light"],
        "trigger": "white-square",
        "target": "light",
        "knn": {"k": 5},
        "tsc": pico.QUICK,
    }
    (folder / "demo.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def test_the_whole_way_once(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = demo(None, seed=0, device="cpu", listener=silent, embedded=embedded)
    assert set(answer.data) == {"results", "changes", "protocol", "seconds"}
    assert [row["which"] for row in answer.data["results"]] == ["before", "after", "reference"]
    assert all(row["attack_success_rate"]["n"] == 16 for row in answer.data["results"])
    assert "purified" in answer.text
    left = pico.trees(tmp_path / "runs" / "demo")
    assert {"victim.purified.safetensors", "profile-round-1-stage-2.png", "map-after.png"} < left
    losses = Path("runs/demo/metrics.jsonl").read_text("utf-8").splitlines()
    assert {"round 1 · stage 1", "round 1 · stage 2"} <= {json.loads(s)["stage"] for s in losses}
    record = json.loads(Path("runs/demo/report.json").read_text("utf-8"))
    assert record["results"] == answer.data["results"]
    assert record["sha256"] in answer.text
    html = Path("runs/demo/report.html").read_text("utf-8")
    assert html == to_html(record, pictures_of(Path("runs/demo")))
    parts = [link["href"] for link in parsed(html).all("a")]
    assert {"#verdict", "#map", "#neighbours", "#curves", "#permutations", "#limits"} < set(parts)


def test_embedded_images_keep_their_pixels(embedded: Path) -> None:
    images = read_demo_images(embedded / "images.npz", ("a", "b", "c"))
    with np.load(embedded / "images.npz") as arrays:
        assert (images.clean.pixels[:, 2].numpy() == arrays["clean"]).all()
        assert images.test.labels.tolist() == arrays["test_labels"].tolist()


def test_the_embedded_data_fit_together() -> None:
    recipe = load(DemoRecipe, EMBEDDED / "demo.yaml", flags={"checkpoint": EMBEDDED})
    images = read_demo_images(EMBEDDED / "images.npz", recipe.classes)
    assert images.clean.size == images.bank.images.size == images.test.images.size
    assert set(images.test.labels.tolist()) == set(range(len(recipe.classes)))
    assert recipe.target in recipe.classes
    for name in ("victim", "reference"):
        read_weights(EMBEDDED / f"{name}.safetensors", recipe)
    assert sum(file.stat().st_size for file in EMBEDDED.iterdir()) <= 6_000_000


@pytest.mark.slow
def test_the_real_demo_takes_the_backdoor_out(tmp_path: Path) -> None:
    answer = demo(tmp_path / "out", seed=0, device="cpu", listener=silent, embedded=EMBEDDED)
    before, after, reference = answer.data["results"]
    assert before["attack_success_rate"]["value"] >= 0.9
    assert after["attack_success_rate"]["value"] <= reference["attack_success_rate"]["value"] + 0.05
    assert after["clean_accuracy"]["value"] >= before["clean_accuracy"]["value"] - 0.03
