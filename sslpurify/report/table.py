"""Small text tables for people; per cent here and nowhere else."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sslpurify.data.folder import printable
from sslpurify.probes import Rate
from sslpurify.report.record import Evaluation


def evaluation_table(evaluation: Evaluation, names: Mapping[str, str] | None = None) -> str:
    """One line per encoder and probe: clean accuracy and attack success rate.

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
    note = f"per cent with 95 % interval (Wilson); {evaluation.seconds:.0f} s"
    if attacked:
        note += f"; attack success rate: {_PROTOCOL[evaluation.protocol]}"
    return f"{grid(heads, lines)}\n{note}"


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


def _listed(items: Sequence[str], limit: int = 5) -> str:
    if not items:
        return "none"
    more = f", and {len(items) - limit} more" if len(items) > limit else ""
    return printable(", ".join(items[:limit])) + more
