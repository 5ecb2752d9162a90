"""Every block of a tutorial runs, at pico size."""

import csv
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from open_clip import add_model_config
from PIL import Image
from typer.testing import Result

from tests import pico, pico_clip

TUTORIAL = (Path(__file__).parents[1] / "docs/tutorials/purify-a-clip.md").read_text("utf-8")
BLOCKS = re.findall(r"```(console|python)\n(.*?)```", TUTORIAL, re.DOTALL)
SMALL = [f"--set=tsc.{key}={value}" for key, value in pico.QUICK.items()]


def write_files(folder: Path) -> None:
    """What the reader of the tutorial has: a checkpoint, pairs, images, test images by class."""
    torch.save(pico_clip.state("vit"), folder / "suspicious.pt")
    pico.write_images(folder / "images", 24, size=pico_clip.SIZE)
    with (folder / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filepath", "title"])
        names = sorted(path.name for path in (folder / "images").iterdir())
        rows.writerows([f"images/{name}", f"picture number {n}"] for n, name in enumerate(names))
    pico.write_classes(folder / "test", 4, size=pico_clip.SIZE)
    first = sorted((folder / "test").iterdir())[0]
    first.rename(first.with_name("truck"))
    for path in (folder / "test").rglob("*.png"):
        with Image.open(path) as image:
            assert image.size == (pico_clip.SIZE, pico_clip.SIZE)


def test_every_block_of_the_tutorial_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Result]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    config = pico_clip.write_config(tmp_path / "pico.json", "vit")
    add_model_config(config)
    assert len(BLOCKS) == 5
    for language, text in BLOCKS:
        if language == "python":
            exec(text.replace("ViT-B-32", "pico"), {})  # noqa: S102
            continue
        command = text.removeprefix("$ sslpurify ").strip()
        command = command.replace("open_clip/ViT-B-32 --no-force-quick-gelu", f"open_clip/{config}")
        verb, *words = shlex.split(command)
        words += SMALL if verb == "purify" else []
        words += ["--arch", f"open_clip/{config}"] if verb == "inspect" else []
        result = cli(verb, *words)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "purified/suspicious.purified.pt").is_file()
    assert "zeroshot" in result.output
