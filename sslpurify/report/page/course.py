"""The parts of a page that tell what a purification did: stages, curves, permutations."""

from collections.abc import Sequence

from sslpurify.report.page.elements import NONE, Cell, Folded, Section, Table
from sslpurify.report.page.evidence import Pictures, picture
from sslpurify.report.page.wording import Record, slug, unbroken


def curves(record: Record, pictures: Pictures) -> list[Section]:
    """The stages in numbers, and each curve as a drawing."""
    stages: Sequence[Record] = record.get("stages", ())
    if not stages:
        return []
    rows = tuple(
        (
            Cell(stage["name"]),
            NONE if stage["t"] is None else Cell(f"{stage['t']:.3g}"),
            Cell("{:.3f} → {:.3f}".format(*stage["loss"])),
            Cell(unbroken(f"{stage['seconds']:.0f} s")),
        )
        for stage in stages
    )
    heads = ("stage", "t taken", "loss, first → last tenth", "time")
    figures = [
        picture(
            f"profile-{slug(stage['name'])}.svg",
            pictures,
            f"Label-free loss and agreement along the curve of {stage['name']}",
            _course(stage),
        )
        for stage in stages
        if stage["profile"] is not None
    ]
    text = (
        "Each curve runs through weight space between two encoders and is trained on clean images "
        "without labels. Loss and agreement with the encoder that was given are measured on clean "
        "images too: a backdoor does not show in them."
    )
    table = Table("Stages of the purification", heads, rows)
    return [
        Section("curves", "Curves", paragraphs=(text,), tables=(table,), figures=tuple(figures))
    ]


def _course(stage: Record) -> str:
    """The drawing in words."""
    points = stage["profile"]["points"]
    losses = [point["loss"] for point in points]
    least = min(point["agreement"] for point in points)
    return (
        f"{stage['name']}: loss from {min(losses):.3f} to {max(losses):.3f} along the curve, mean "
        f"cosine with the given encoder at least {least:.3f}; t = {stage['t']:.3g} was taken."
    )


def displacement(record: Record) -> list[Section]:
    """How far each permutation moved the units of each group."""
    moved = [stage for stage in record.get("stages", ()) if stage["displacement"]]
    if not moved:
        return []
    groups = list(dict.fromkeys(group for stage in moved for group in stage["displacement"]))
    rows = tuple(
        (Cell(group), *(_share(stage["displacement"].get(group)) for stage in moved))
        for group in groups
    )
    summary = Table(
        "Groups by how much was moved",
        ("stage", "groups", "all units moved", "none moved"),
        tuple(_counts(stage) for stage in moved),
    )
    table = Table(
        "Per cent of the units that do not stand where they stood",
        ("group", *(stage["name"] for stage in moved)),
        rows,
    )
    text = (
        "A permutation reorders channels, neurons or attention heads and leaves the function as it "
        "is. Misaligning looks for the copy farthest away, aligning for the nearest."
    )
    return [
        Section(
            "permutations",
            "Permutations",
            paragraphs=(text,),
            tables=(summary,),
            folded=(Folded(f"All {len(groups)} groups", tables=(table,)),),
        )
    ]


def _counts(stage: Record) -> tuple[Cell, ...]:
    shares = list(stage["displacement"].values())
    numbers = (len(shares), shares.count(1.0), shares.count(0.0))
    return (Cell(stage["name"]), *(Cell(str(number)) for number in numbers))


def _share(value: float | None) -> Cell:
    return NONE if value is None else Cell(f"{100 * value:.0f}")
