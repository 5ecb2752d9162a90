import os
from pathlib import Path

import pytest

from sslpurify.data.folder import class_folders, list_images
from sslpurify.errors import DataError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(folder: Path, **options: object) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in list_images(folder, **options).files]


def test_images_are_found_at_any_depth_sorted_by_relative_path(tmp_path: Path):
    wanted = ["2.png", "10.JPG", "a/b/c/d.webp", "a/b.tiff", "b.pgm", "a.gif", "a-b/x.bmp"]
    touch(*(tmp_path / name for name in wanted), tmp_path / "notes.txt", tmp_path / "a/labels.csv")
    assert names(tmp_path) == sorted(wanted)
    assert list_images(tmp_path).others == 2


def test_order_does_not_depend_on_how_the_folder_is_named(tmp_path: Path, monkeypatch):
    touch(tmp_path / "x/b.png", tmp_path / "x/a.png")
    monkeypatch.chdir(tmp_path)
    assert names(Path("x")) == names(tmp_path / "x") == ["a.png", "b.png"]


def test_hidden_and_excluded_are_left_out(tmp_path: Path):
    touch(tmp_path / "a.png", tmp_path / ".b.png", tmp_path / ".git/c.png", tmp_path / "out/d.png")
    (tmp_path / "alias").symlink_to(tmp_path / "out")
    assert names(tmp_path, exclude=[tmp_path / "alias"]) == ["a.png"]
    assert list_images(tmp_path, exclude=[tmp_path / "out"]).others == 0


def test_folders_of_runs_are_left_out_and_named(tmp_path: Path, caplog):
    for name, files in {
        "a/run-1": ["config.yaml", "report.json"],
        "running": ["config.yaml", "metrics.jsonl"],
        "out.partial-x1": [],
        "config-only": ["config.yaml"],
        "report-only": ["report.json"],
    }.items():
        touch(*(tmp_path / name / file for file in (*files, "profile.png", "deeper/b.png")))
    kept = ["config-only/deeper/b.png", "config-only/profile.png"]
    kept += ["report-only/deeper/b.png", "report-only/profile.png"]
    assert names(tmp_path) == kept
    told = {record.getMessage() for record in caplog.records}
    assert told == {
        f"left out: {tmp_path / name}: the folder of a run"
        for name in ("a/run-1", "running", "out.partial-x1")
    }
    assert class_folders(tmp_path) == ("a", "config-only", "report-only")


def test_links_that_leave_the_folder_are_listed_not_followed(tmp_path: Path):
    inside, outside = tmp_path / "in", tmp_path / "in-secret"
    touch(inside / "a.png", outside / "b.png", outside / "c.txt")
    (inside / "file.png").symlink_to(outside / "b.png")
    (inside / "folder").symlink_to(outside)
    (inside / "up").symlink_to("..")
    (inside / "text.txt").symlink_to(outside / "c.txt")
    listing = list_images(inside)
    assert names(inside) == ["a.png"]
    assert [item.source.name for item in listing.unreadable] == ["file.png", "folder", "up"]
    assert {item.reason.split(":")[0] for item in listing.unreadable} == {
        "symbolic link that leaves the folder"
    }


def test_links_within_the_folder_neither_loop_nor_double_a_folder(tmp_path: Path):
    touch(tmp_path / "a/b.png")
    (tmp_path / "a/self").symlink_to(tmp_path)
    (tmp_path / "again.png").symlink_to(tmp_path / "a/b.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    listing = list_images(tmp_path)
    assert names(tmp_path) == ["a/b.png", "again.png"]
    assert [(item.source.name, item.reason) for item in listing.unreadable] == [
        ("gone.png", "symbolic link that leads nowhere"),
        ("loop.png", "symbolic link that leads nowhere"),
    ]


def test_the_folder_itself_may_be_a_link(tmp_path: Path):
    touch(tmp_path / "real/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert names(tmp_path / "link") == ["a.png"]


def test_special_files_are_listed(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    assert [str(item) for item in list_images(tmp_path).unreadable] == [
        f"{tmp_path}/pipe.png: not a regular file"
    ]


def test_a_folder_named_like_an_image_is_a_folder(tmp_path: Path):
    touch(tmp_path / "a.png/b.jpg")
    assert names(tmp_path) == ["a.png/b.jpg"]


def test_missing_folder_and_file_are_errors(tmp_path: Path):
    touch(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png is a file: give the folder"):
        list_images(tmp_path / "a.png")
    with pytest.raises(DataError, match="nope does not exist"):
        list_images(tmp_path / "nope")


def test_class_folders_are_sorted_as_strings(tmp_path: Path):
    touch(*(tmp_path / name / "a.png" for name in ("2", "10", "b", "B", ".hidden")))
    touch(tmp_path / "README.txt")
    assert class_folders(tmp_path) == ("10", "2", "B", "b")


def test_class_folders_refuses_what_would_shift_or_lose_labels(tmp_path: Path):
    touch(tmp_path / "flat/a.png", tmp_path / "flat/cat/a.png", tmp_path / "empty/.hidden")
    touch(tmp_path / "linked/cat/a.png")
    (tmp_path / "linked/dog").symlink_to(tmp_path / "flat/cat")
    for name, message in (
        ("flat", "a.png lies outside the class folders"),
        ("empty", "has no class folders"),
        ("linked", "dog is a symbolic link"),
        ("nope", "does not exist"),
    ):
        with pytest.raises(DataError, match=message):
            class_folders(tmp_path / name)
