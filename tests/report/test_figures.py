from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from sslpurify.curves import Point, Profile
from sslpurify.probes import wilson
from sslpurify.report import SweepPoint, SweepRates, SweptStage, embedding_map
from sslpurify.report.figures import CLASS_COLOURS, save_map, save_profile, save_sweep
from tests.report.browsing import parsed
from tests.report.page.test_document import contrast
from tests.report.records import CLASSES, SCRIPT

PROFILE = Profile(
    tuple(Point(t / 4, 4.0 + t, 1 - t / 10, 1 - t / 8) for t in range(5)), chosen=0.25
)


def test_a_profile_is_a_readable_picture_and_the_same_bytes_again(tmp_path: Path) -> None:
    first, again, other = (tmp_path / name for name in ("a.png", "b.png", "c.png"))
    save_profile(PROFILE, first, title="round 1 · stage 1")
    save_profile(PROFILE, again, title="round 1 · stage 1")
    save_profile(Profile(PROFILE.points, 0.75), other, title="round 1 · stage 1")
    with Image.open(first) as picture:
        assert picture.format == "PNG"
        assert picture.width >= 800
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() != other.read_bytes()


def swept(probes: int, *, attacked: bool = True) -> SweptStage:
    points = tuple(
        SweepPoint(
            t / 4,
            tuple(
                SweepRates(f"probe {n}", wilson(60 - t, 100), wilson(90 - 20 * t, 90))
                if attacked
                else SweepRates(f"probe {n}", wilson(60 - t, 100), None)
                for n in range(probes)
            ),
        )
        for t in range(5)
    )
    return SweptStage("round 1 · stage 1", 0.25, points, PROFILE)


def test_a_sweep_is_a_picture_with_a_panel_for_each_probe(tmp_path: Path) -> None:
    heights = list[int]()
    for probes in (1, 2):
        path = tmp_path / f"{probes}.png"
        save_sweep(swept(probes), path, title="x", usual={"probe 0": wilson(5, 90)})
        with Image.open(path) as picture:
            heights.append(picture.height)
    assert heights == [920, 1380]


def test_a_sweep_shows_what_there_is(tmp_path: Path) -> None:
    pictures = list[bytes]()
    for stage, usual in (
        (swept(1), None),
        (swept(1), {"probe 0": wilson(5, 90)}),
        (swept(1, attacked=False), None),
        (replace(swept(1), profile=None), None),
    ):
        path = tmp_path / f"{len(pictures)}.png"
        save_sweep(stage, path, title="x", usual=usual)
        pictures.append(path.read_bytes())
    assert len(set(pictures)) == 4


@pytest.fixture(scope="module")
def seen() -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(len(CLASSES)).repeat_interleave(4)
    clean, moved = torch.randn(2, len(labels), 8, generator=generator)
    return embedding_map({"before": (clean, moved), "after": (moved, None)}, labels)


@pytest.mark.parametrize("which", ["before", "after"])
def test_a_map_with_hostile_names_is_a_drawing_and_nothing_else(
    which: str, seen: dict[str, object], tmp_path: Path
) -> None:
    save_map(seen, which, CLASSES, SCRIPT, tmp_path / "map.png")
    save_map(seen, which, CLASSES, SCRIPT, tmp_path / "again.png")
    drawing = (tmp_path / "map.svg").read_bytes()
    assert drawing == (tmp_path / "again.svg").read_bytes()
    tags = {tag for tag, _ in parsed(drawing.decode()).found}
    assert tags <= {"svg", "style", "g", "defs", "path", "use", "clippath", "rect"}
    assert b"script" not in drawing
    assert b"#1b1b1b}@media (prefers-color-scheme:dark)" in drawing
    for colour in CLASS_COLOURS[: len(CLASSES)]:
        assert drawing.count(f'"fill: {colour}; fill-opacity: 0.75"/>'.encode()) == 4 + 1  # legend
    crosses = drawing.count(b"stroke: currentColor; stroke-opacity: 0.7;")
    assert crosses == (28 + 2 if which == "before" else 0)  # legend, and the marker itself


def test_of_many_classes_only_the_target_is_told_apart(
    seen: dict[str, object], tmp_path: Path
) -> None:
    many = [*CLASSES, *(f"class {number}" for number in range(200))]
    save_map(seen, "before", many, SCRIPT, tmp_path / "map.png")
    drawing = (tmp_path / "map.svg").read_text()
    assert {colour for colour in CLASS_COLOURS if colour in drawing} == {"#7a7a7a"}
    assert drawing.count('"fill: #d55e00; fill-opacity: 0.75"/>') == 4 + 1


def test_the_classes_stand_out_from_light_and_dark_paper() -> None:
    assert len(set(CLASS_COLOURS)) == 10
    for colour in CLASS_COLOURS:
        assert contrast(colour, "#ffffff") >= 3
        assert contrast(colour, "#14171a") >= 3
