"""From a run's record and pictures to its page: a pure function, and the files it makes."""

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from sslpurify.probes import Rate
from sslpurify.purify import Stage
from sslpurify.report.figures import save_map, save_profile, save_sweep
from sslpurify.report.page.course import curves, displacement
from sslpurify.report.page.elements import Page, render
from sslpurify.report.page.evidence import Pictures, embedding_maps, neighbours, trigger
from sslpurify.report.page.limits import limits
from sslpurify.report.page.origin import configuration, provenance
from sslpurify.report.page.verdict import classes, sweep, verdict
from sslpurify.report.page.wording import Record, slug
from sslpurify.report.sweep import SweptStage

PICTURES = "pictures"
"""Folder, beside the record, of the images that it names."""


def to_html(record: Record, pictures: Pictures) -> str:
    """The page of a purification, an evaluation or both: what the record has not, the page has not.

    Args:
        record: What ``report.json`` holds.
        pictures: Every picture beside it, see `pictures_of`.
    """
    sections = (
        *verdict(record),
        *embedding_maps(record, pictures),
        *neighbours(record, pictures),
        *trigger(record, pictures),
        *classes(record),
        *curves(record, pictures),
        *sweep(record, pictures),
        *displacement(record),
        *limits(record),
        *configuration(record),
        *provenance(record),
    )
    return render(Page(*_heading(record), sections))


def draw(record: Record, folder: Path) -> None:
    """Draw the figures of a record as PNG and SVG files: curves, what was swept of them, maps.

    Args:
        record: As `to_html`.
        folder: Where to; exists.
    """
    for data in record.get("stages", ()):
        stage = Stage.from_json(data)
        if stage.profile is not None:
            path = folder / f"profile-{slug(stage.name)}.png"
            save_profile(stage.profile, path, title=stage.name)
    usual = {
        row["probe"]: Rate(**rate)
        for row in record.get("results", ())
        if row["which"] == "reference" and (rate := row["attack_success_rate"]) is not None
    }
    for data in record.get("sweep", ()):
        swept = SweptStage.from_json(data)
        path = folder / f"sweep-{slug(swept.name)}.png"
        save_sweep(swept, path, title=swept.name, usual=usual)
    shown: Mapping[str, Any] | None = record.get("map")
    if shown is not None:
        target = None if record.get("trigger") is None else record["trigger"]["target"]
        for which in shown["encoders"]:
            save_map(shown, which, record["classes"], target, folder / f"map-{which}.png")


def pictures_of(folder: Path) -> dict[str, bytes]:
    """The pictures of a run's folder under the names by which its record knows them."""
    files = [*folder.glob("*.svg"), *folder.glob(f"{PICTURES}/*.png")]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _heading(record: Record) -> tuple[str, str]:
    measured, made = "results" in record, "output" in record
    verb = "Purified and measured" if measured and made else "Measured" if measured else "Purified"
    origin = record["origin"]
    file = record["output"] if made else origin["checkpoints"]["after"]["file"]
    took = f"{record['seconds']:.0f} s" if "seconds" in record else ""
    by = f"sslpurify {origin['versions']['sslpurify']}, seed {origin['seed']}, {took}"
    return f"{verb}: {PurePath(file).name}", by
