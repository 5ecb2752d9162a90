"""Small text tables for people; per cent here and nowhere else."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sslpurify.data.folder import printable
from sslpurify.probes import Change, Rate
from sslpurify.report.record import ClassRates, Evaluation


def evaluation_table(evaluation: Evaluation, names: Mapping[str, str] | None = None) -> str:
    """One line per encoder and probe: clean accuracy and attack success rate.

    Below them, where both were measured, a line per probe: after less before on the same images.

    Args:
        evaluation: What was measured.
        names: Shown for a row's ``which``, e.g. the checkpoint's file name.
    """
    names = names or {}
    attacked = any(row.attack_success_rate for row in evaluation.rows)
    heads = ["encoder", "probe", "clean accuracy"] + ["attack success rate"] * attacked
    lines = [
        [names.get(row.which, row.which), row.probe, _rate(row.clean_accuracy)]
        + [_rate(row.attack_success_rate)] * attacked
        for row in evaluation.rows
    ]
    lines += [
        ["after less before", change.probe, _change(change.clean_accuracy)]
        + [_change(change.attack_success_rate)] * attacked
        for change in evaluation.changes
    ]
    note = f"per cent with 95 % interval (Wilson); {evaluation.seconds:.0f} s"
    if evaluation.changes:
        note += "; changes: paired (Newcombe; McNemar's mid-p)"
    if attacked:
        note += f"; attack success rate: {_PROTOCOL[evaluation.protocol]}"
    return f"{grid(heads, lines)}\n{note}"


def classes_table(evaluation: Evaluation) -> str:
    """One grid per probe, one line per class: clean accuracy / attack success rate by encoder."""
    probes = dict.fromkeys(row.probe for row in evaluation.rows)
    grids: list[str] = []
    for probe in probes:
        rows = [row for row in evaluation.rows if row.probe == probe]
        lines = [
            [printable(some[0].name), _count(some[0].clean_accuracy), *map(_pair, some)]
            for some in zip(*(row.classes for row in rows), strict=True)
        ]
        grids.append(grid([f"class, {probe}", "n", *(row.which for row in rows)], lines))
    note = "clean accuracy / attack success rate in per cent; n of the clean test images"
    return "\n\n".join([*grids, note])


def stages_table(stages: Sequence[Mapping[str, Any]]) -> str:
    """One line per stage of a purification, from the stages' JSON."""
    lines = [
        [
            str(stage["name"]),
            "" if stage["t"] is None else f"{stage['t']:.3g}",
            "" if stage["loss"] is None else "{:.3f} → {:.3f}".format(*stage["loss"]),
            f"{stage['seconds']:.1f} s",
        ]
        for stage in stages
    ]
    return grid(["stage", "t", "loss", "time"], lines)


def inspection_table(inspection: Mapping[str, Any]) -> str:
    """What a checkpoint holds, one fact a line."""
    groups = inspection["groups"]
    architecture = inspection["architecture"] or "none fits"
    kinds = sorted({group["kind"] for group in groups})
    counts = ", ".join(f"{sum(g['kind'] == kind for g in groups)} {kind}" for kind in kinds)
    facts = [
        ["format", inspection["format"] or "unknown"],
        *([["state dict", _within(inspection)]] if inspection["format"] else []),
        ["architecture", f"{architecture} (confidence {inspection['confidence']:.2f})"],
        ["permutation groups", counts or "none"],
        ["ignored tensors", _listed(inspection["ignored"])],
        *(["decision", printable(decision)] for decision in inspection["decisions"]),
        *(["warning", printable(warning)] for warning in inspection["warnings"]),
        *(["problem", printable(problem)] for problem in inspection["problems"]),
        *([["next", inspection["next"]]] if inspection["next"] else []),
    ]
    return grid([], facts)


def _within(inspection: Mapping[str, Any]) -> str:
    """Where the weights lie and what they are."""
    kinds = ", ".join(f"{count} {dtype}" for dtype, count in inspection["dtypes"].items())
    place = [part for part in (inspection["wrapper"], f"{inspection['prefix']}*") if part]
    return f"{printable('.'.join(place))}, {kinds}, {inspection['parameters']:,} numbers"


def grid(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Cells in aligned columns; the heads underlined when there are any."""
    rows = [list(heads), *map(list, lines)] if heads else [list(line) for line in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if heads:
        rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


_PROTOCOL = {
    "exclude-target": "test images of the target class left out",
    "all": "test images of the target class counted too",
}


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return "-"
    return f"{rate.value:6.1%} [{rate.low:.1%}, {rate.high:.1%}] n={rate.n}".replace("%", "")


def _change(change: Change | None) -> str:
    if change is None:
        return "-"
    value, low, high = (f"{100 * v:+.1f}" for v in (change.value, change.low, change.high))
    p = "p<0.001" if change.p < 0.001 else f"p={change.p:.3f}"
    return f"{value:>6} [{low}, {high}] {p}"


def _pair(rates: ClassRates) -> str:
    both = (rates.clean_accuracy, rates.attack_success_rate)
    return " / ".join("-" if rate is None else f"{100 * rate.value:.1f}" for rate in both)


def _count(rate: Rate | None) -> str:
    return "0" if rate is None else str(rate.n)


def _listed(items: Sequence[str], limit: int = 5) -> str:
    if not items:
        return "none"
    more = f", and {len(items) - limit} more" if len(items) > limit else ""
    return printable(", ".join(items[:limit])) + more
