from dataclasses import replace
from pathlib import Path

from PIL import Image

from sslpurify.curves import Point, Profile
from sslpurify.probes import wilson
from sslpurify.report import SweepPoint, SweepRates, SweptStage, save_profile, save_sweep

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
        save_sweep(swept(probes), path, title="x", floors={"probe 0": wilson(5, 90)})
        with Image.open(path) as picture:
            heights.append(picture.height)
    assert heights == [900, 1350]


def test_a_sweep_shows_what_there_is(tmp_path: Path) -> None:
    pictures = list[bytes]()
    for stage, floors in (
        (swept(1), None),
        (swept(1), {"probe 0": wilson(5, 90)}),
        (swept(1, attacked=False), None),
        (replace(swept(1), profile=None), None),
    ):
        path = tmp_path / f"{len(pictures)}.png"
        save_sweep(stage, path, title="x", floors=floors)
        pictures.append(path.read_bytes())
    assert len(set(pictures)) == 4
