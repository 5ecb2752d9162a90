"""Every block of every page runs, at pico size, and the site shows every room."""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from open_clip import add_model_config
from typer.testing import Result

import sslpurify
from tests import pico, pico_clip
from tests.pages import ROOT, Small, blocks, pages, run_page

QUICK = ", ".join(f"{key}={value}" for key, value in pico.QUICK.items())
SMALL = [f"--set=tsc.{key}={value}" for key, value in pico.QUICK.items()]
KNN = ["--set=knn.k=5"]
SIMCLR = Small({"simclr/resnet18-cifar": pico.ARCH}, {"purify": SMALL, "evaluate": KNN})
CLIP = "open_clip/ViT-B-32 --no-force-quick-gelu"


@dataclass(frozen=True)
class Page:
    """What the reader of a page has, and how its work is made small."""

    write_files: Callable[[Path], None]
    small: Small
    leaves: str


def write_simclr(folder: Path) -> None:
    """A suspicious encoder, a clean one, clean images, and labelled ones with a truck class."""
    torch.save(pico.state(), folder / "encoder.pt")
    torch.save(pico.state(), folder / "clean.pt")
    pico.write_images(folder / "clean_images", 24)
    for name, count, seed in (("train", 10, 0), ("test", 6, 1)):
        (pico.write_classes(folder / name, count, seed) / "red").rename(folder / name / "truck")


def write_clip(folder: Path) -> None:
    """A suspicious CLIP, pairs, images, test images by class."""
    torch.save(pico_clip.state("vit"), folder / "suspicious.pt")
    pico.write_images(folder / "images", 24, size=pico_clip.SIZE)
    with (folder / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filepath", "title"])
        names = sorted(path.name for path in (folder / "images").iterdir())
        rows.writerows([f"images/{name}", f"picture number {n}"] for n, name in enumerate(names))
    (pico.write_classes(folder / "test", 4, size=pico_clip.SIZE) / "red").rename(
        folder / "test" / "truck"
    )
    add_model_config(pico_clip.write_config(folder / "pico.json", "vit"))


def write_both(folder: Path) -> None:
    """What the examples of the README take."""
    write_simclr(folder)
    torch.save(pico_clip.state("vit"), folder / "clip.pt")
    (folder / "pairs.csv").write_text(
        "filepath,title\n" + "".join(f"clean_images/{n:03}.png,picture {n}\n" for n in range(24))
    )
    pico_clip.write_config(folder / "pico.json", "vit")


def nothing(_: Path) -> None:
    """The page needs no files."""


RUN = {
    "README.md": Page(
        write_both,
        Small(
            {
                "simclr/resnet18-cifar": pico.ARCH,
                "simclr/resnet18 ": f"{pico.ARCH} ",
                CLIP: "open_clip/pico.json",
                "TscSettings()": f"TscSettings({QUICK})",
            },
            {"purify": SMALL, "evaluate": KNN},
        ),
        "purified/encoder.purified.pt",
    ),
    "CONTRIBUTING.md": Page(nothing, Small({}, {}), ""),
    "docs/index.md": Page(write_simclr, SIMCLR, "purified/encoder.purified.pt"),
    "docs/all-of-sslpurify.md": Page(
        nothing,
        Small(
            {
                "count = 3000": "count = 60",
                "k=200": "k=20",
                "TscSettings()": f"TscSettings({QUICK})",
            },
            {},
        ),
        "purified.safetensors",
    ),
    "docs/tutorials/purify-a-simclr-encoder.md": Page(
        write_simclr, SIMCLR, "purified/profile-round-1-stage-2.png"
    ),
    "docs/tutorials/purify-a-clip.md": Page(
        write_clip,
        Small(
            {CLIP: "open_clip/pico.json", '"ViT-B-32"': '"pico"'},
            {"purify": SMALL, "inspect": ["--arch", "open_clip/pico.json"]},
        ),
        "purified/suspicious.purified.pt",
    ),
    "docs/tutorials/evaluate-your-own.md": Page(
        write_simclr,
        Small({**SIMCLR.words, "k=200": "k=5"}, SIMCLR.flags),
        "sticker.yaml",
    ),
    "docs/tutorials/write-an-adapter.md": Page(
        nothing, Small({"TscSettings()": f"TscSettings({QUICK})"}, {}), ""
    ),
    "docs/tutorials/write-a-recipe.md": Page(
        write_simclr,
        Small(
            {
                **SIMCLR.words,
                "k: 200": "k: 5",
                "verb: attack": f"verb: attack\nimage_size: {pico.SIZE}",
                "schedule: cosine": "schedule: constant",
                "epochs: 4": "epochs: 15\n  batch_size: 8\n  reference_views: 4",
                "learning_rate: 3.0e-4": "learning_rate: 1.0e-2",
                "min_attack_success_rate: 0.9": "min_attack_success_rate: 0.5",
            },
            SIMCLR.flags,
        ),
        "runs/again/encoder.purified.pt",
    ),
}


@pytest.mark.parametrize("page", RUN)
def test_every_block_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Result]
) -> None:
    monkeypatch.chdir(tmp_path)
    RUN[page].write_files(tmp_path)
    run_page(page, RUN[page].small, cli)
    assert (tmp_path / RUN[page].leaves).exists()


def test_the_example_of_the_readme_is_short() -> None:
    (example,) = (block.text for block in blocks("README.md") if block.language == "python")
    assert len([line for line in example.splitlines() if line]) <= 12


def test_no_other_page_has_a_block_that_runs() -> None:
    assert [page for page in pages() if blocks(page)] == sorted(RUN)


def test_every_room_has_a_page_of_the_reference() -> None:
    package = Path(sslpurify.__file__).parent
    rooms = {path.parent.relative_to(package) for path in package.rglob("__init__.py")} - {Path()}
    files = {path.relative_to(package).with_suffix("") for path in package.glob("[!_]*.py")}
    named = {"sslpurify." + ".".join(path.parts) for path in rooms | files}
    shown = [
        name
        for page in (ROOT / "docs/api").glob("*.md")
        for name in re.findall(r"^::: (sslpurify[\w.]*)", page.read_text("utf-8"), re.MULTILINE)
    ]
    assert len(shown) == len(set(shown))
    assert named - {"sslpurify.cli"} <= set(shown)
