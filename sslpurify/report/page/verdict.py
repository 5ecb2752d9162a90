"""The parts of a page that hold rates: the verdict and the classes."""

from collections.abc import Sequence

from sslpurify.report.page.elements import NONE, Cell, Folded, Section, Table
from sslpurify.report.page.evidence import Pictures, picture
from sslpurify.report.page.wording import (
    ENCODERS,
    PROBERS,
    PROBES,
    PROTOCOLS,
    Record,
    count,
    per_cent,
    rate_cell,
    slug,
    unbroken,
)

_RATES = {"attack_success_rate": "attack success rate", "clean_accuracy": "clean accuracy"}
_WHEN = {
    "before": "before purification",
    "after": "after it",
    "reference": "with an encoder that was never attacked",
}


def verdict(record: Record) -> list[Section]:
    """What was measured of each encoder; nothing of a run that measured nothing."""
    if "results" not in record:
        return []
    attacked = record.get("trigger") is not None
    probes = list(dict.fromkeys(row["probe"] for row in record["results"]))
    rows = sorted(record["results"], key=lambda row: probes.index(row["probe"]))
    cells = tuple(
        (
            Cell(ENCODERS[row["which"]], PROBES[row["probe"]]),
            rate_cell(row["clean_accuracy"]),
            *([rate_cell(row["attack_success_rate"])] * attacked),
        )
        for row in rows
    )
    heads = ("encoder", "clean accuracy", *(["attack success rate"] * attacked))
    table = Table("Per cent, with 95 % interval (Wilson) and number of images", heads, cells)
    said = [PROTOCOLS[record["protocol"]]] if attacked else []
    return [
        Section(
            "verdict",
            "Verdict",
            tiles=_tiles(rows),
            paragraphs=(*_summary(record), *said),
            tables=(table, *_changes(record, attacked=attacked)),
        )
    ]


def classes(record: Record) -> list[Section]:
    """Every class's rates, a table for each probe; the first one is open."""
    rows: Sequence[Record] = [row for row in record.get("results", ()) if row.get("classes")]
    if not rows:
        return []
    first, *others = [
        _classes_table(rows, probe) for probe in dict.fromkeys(r["probe"] for r in rows)
    ]
    folded = tuple(Folded(table.caption.partition(":")[0], (table,)) for table in others)
    return [Section("classes", "Classes", tables=(first,), folded=folded)]


def sweep(record: Record, pictures: Pictures) -> list[Section]:
    """What was measured along the curves of a purification: each drawn, the numbers folded."""
    stages: Sequence[Record] = record.get("sweep", ())
    if not stages:
        return []
    figures = tuple(
        picture(
            f"sweep-{slug(stage['name'])}.svg",
            pictures,
            f"Clean accuracy and attack success rate along the curve of {stage['name']}",
            _walk(stage),
        )
        for stage in stages
    )
    folded = tuple(
        Folded(
            f"{stage['name']}: {len(stage['points'])} points",
            tuple(
                _sweep_table(stage, rates["probe"], number)
                for number, rates in enumerate(stage["points"][0]["results"])
            ),
        )
        for stage in stages
    )
    text = (
        "Evaluated along each curve, from t = 0 to t = 1. The purification saw none of this when "
        "it took its point. Where a fine-tuning followed, the verdict is that of its result and "
        "not of the point."
    )
    return [
        Section("sweep", "Along the curves", paragraphs=(text,), figures=figures, folded=folded)
    ]


def _walk(stage: Record) -> str:
    """The drawing in words, by its first probe: both ends, and the point nearest the one taken."""
    seen = [(point["t"], point["results"][0]) for point in stage["points"]]
    taken = min(seen, key=lambda point: abs(point[0] - stage["chosen"]))
    parts = [
        f"t = {t:.3g}: {per_cent(rates['clean_accuracy'])} %"
        + (f", ASR {per_cent(fooled)} %" if (fooled := rates["attack_success_rate"]) else "")
        for t, rates in {point[0]: point for point in (seen[0], taken, seen[-1])}.values()
    ]
    probe = PROBES[seen[0][1]["probe"]]
    return f"{stage['name']}, {probe}: {'; '.join(parts)}; t = {stage['chosen']:.3g} was taken."


def _sweep_table(stage: Record, probe: str, number: int) -> Table:
    rows = tuple(
        (
            Cell(f"{point['t']:.2f}"),
            rate_cell(point["results"][number]["clean_accuracy"]),
            rate_cell(point["results"][number]["attack_success_rate"]),
        )
        for point in stage["points"]
    )
    caption = f"{stage['name']}, {PROBES[probe]}, per cent; taken: t = {stage['chosen']:.3g}"
    return Table(caption, ("t", "clean accuracy", "attack success rate"), rows)


def _classes_table(rows: Sequence[Record], probe: str) -> Table:
    mine = [row for row in rows if row["probe"] == probe]
    lines = tuple(
        (
            Cell(some[0]["name"], _count(some[0]["clean_accuracy"])),
            *(_both(rates) for rates in some),
        )
        for some in zip(*(row["classes"] for row in mine), strict=True)
    )
    attacked = any(rates["attack_success_rate"] for row in mine for rates in row["classes"])
    small = "; in small print attack success rate" if attacked else ""
    caption = f"{PROBES[probe]}: clean accuracy in per cent{small}"
    return Table(caption, ("class", *(ENCODERS[row["which"]] for row in mine)), lines)


def _count(rate: Record | None) -> str:
    return "no test images" if rate is None else count(rate)


def _both(rates: Record) -> Cell:
    clean, fooled = rates["clean_accuracy"], rates["attack_success_rate"]
    text = NONE.text if clean is None else per_cent(clean)
    return Cell(text, "" if fooled is None else unbroken(f"ASR {per_cent(fooled)}"))


def _changes(record: Record, *, attacked: bool) -> list[Table]:
    """After less before on the same images, where both were measured."""
    if not record.get("changes"):
        return []
    kinds = ("clean_accuracy", *(["attack_success_rate"] * attacked))
    rows = tuple(
        (Cell(PROBES[change["probe"]]), *(_change(change[kind]) for kind in kinds))
        for change in record["changes"]
    )
    caption = (
        "After less before on the same images, in points, with 95 % interval (Newcombe, paired) "
        "and McNemar's mid-p"
    )
    return [Table(caption, ("probe", *(_RATES[kind] for kind in kinds)), rows)]


def _change(change: Record | None) -> Cell:
    if change is None:
        return NONE
    value, low, high = (f"{100 * change[key]:+.1f}" for key in ("value", "low", "high"))
    p = "p < 0.001" if change["p"] < 0.001 else f"p = {change['p']:.3f}"
    return Cell(unbroken(value), f"{unbroken(f'{low} to {high}')}, {unbroken(p)}")


def _tiles(rows: Sequence[Record]) -> tuple[Cell, ...]:
    """The first probe's rates, before → after, and beside them what is usual without any attack."""
    probe = rows[0]["probe"]
    seen = {row["which"]: row for row in rows if row["probe"] == probe}
    tiles: list[Cell] = []
    for rate, name in _RATES.items():
        found = {which: row[rate] for which, row in seen.items() if row[rate] is not None}
        if "after" not in found:
            continue
        course = " → ".join(per_cent(found[w]) for w in ("before", "after") if w in found)
        usual = (
            f"; never attacked: {per_cent(found['reference'])} %" if "reference" in found else ""
        )
        tiles.append(Cell(f"{course} %", f"{name} ({PROBES[probe]}){usual}"))
    return tuple(tiles)


def _summary(record: Record) -> list[str]:
    """The first probe's success rates as sentences."""
    probe, trigger = record["results"][0]["probe"], record.get("trigger")
    if trigger is None:
        return ["No trigger was given, so this says nothing about a backdoor."]
    parts = [
        f"{round(rate['value'] * rate['n']):,} of {rate['n']:,} {_WHEN[row['which']]}"
        for row in record["results"]
        if row["probe"] == probe and (rate := row["attack_success_rate"]) is not None
    ]
    said = f"Test images with the trigger “{trigger['name']}” that {PROBERS[probe]} took for "
    return [f"{said}“{trigger['target']}”: {'; '.join(parts)}."]
