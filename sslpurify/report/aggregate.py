"""Evaluations of runs that differ in their seeds, put together: mean and spread of every rate."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from sslpurify.probes import Change, Rate
from sslpurify.report.record import Changes, Evaluation, Row, Which
from sslpurify.report.table import grid

Figure = Rate | Change


@dataclass(frozen=True)
class Spread:
    """One rate, or change of a rate, over several runs; all as fractions.

    Args:
        mean: Of the runs.
        sd: Their standard deviation (of a sample); None for a single one.
        least: The smallest.
        most: The largest.
        runs: How many different runs.
        n: Images that each of them was measured on.
    """

    mean: float
    sd: float | None
    least: float
    most: float
    runs: int
    n: int


def aggregate(evaluations: Sequence[Evaluation], drawing: Collection[str]) -> dict[str, Any]:
    """Mean and spread over the runs, for every encoder and probe.

    What several evaluations measured alike, as one never attacked encoder, is one run: a probe sees
    the same again in the same checkpoint, whatever the seed, unless it draws.

    Args:
        evaluations: Of the same images by the same probes; each has an origin.
        drawing: The probes that draw something by the seed.

    Returns:
        ``results`` and ``changes`` as an evaluation has them, with a `Spread` for each rate, and
        the protocol.
    """
    first = evaluations[0]
    results: list[dict[str, Any]] = []
    for number, row in enumerate(first.rows):
        seeded = row.probe in drawing
        unlike = {_identity(each, row.which, seeded): each.rows[number] for each in evaluations}
        results.append({"which": row.which, "probe": row.probe, **_spreads(unlike.values())})
    changes = [
        {"probe": change.probe, **_spreads(each.changes[number] for each in evaluations)}
        for number, change in enumerate(first.changes)
    ]
    return {"results": results, "changes": changes, "protocol": first.protocol}


def aggregate_table(data: dict[str, Any]) -> str:
    """What `aggregate` gives, a line each, in per cent."""
    rows: list[dict[str, Any]] = [
        *data["results"],
        *({"which": "after less before", **change} for change in data["changes"]),
    ]
    attacked = any(row["attack_success_rate"] for row in rows)
    heads = ["encoder", "probe", "runs", "clean accuracy"] + ["attack success rate"] * attacked
    lines = [
        [row["which"], row["probe"], str(row["clean_accuracy"]["runs"])]
        + [_shown(row["clean_accuracy"])]
        + [_shown(row["attack_success_rate"])] * attacked
        for row in rows
    ]
    note = f"per cent: mean ± standard deviation of the runs (least to most); {data['protocol']}"
    return f"{grid(heads, lines)}\n{note}"


def _identity(evaluation: Evaluation, which: Which, seeded: bool) -> tuple[str, int | None]:
    origin = evaluation.origin
    if origin is None:
        raise ValueError("an evaluation without an origin")
    return origin.checkpoints[which].sha256, origin.seed if seeded else None


def _spreads(measured: Iterable[Row | Changes]) -> dict[str, Any]:
    some = list(measured)

    def told(rate: Callable[[Row | Changes], Figure | None]) -> dict[str, Any] | None:
        figures = [figure for each in some if (figure := rate(each)) is not None]
        return asdict(_spread(figures)) if figures else None

    return {
        "clean_accuracy": told(lambda each: each.clean_accuracy),
        "attack_success_rate": told(lambda each: each.attack_success_rate),
    }


def _spread(figures: Sequence[Figure]) -> Spread:
    values = [figure.value for figure in figures]
    sd = stdev(values) if len(values) > 1 else None
    return Spread(fmean(values), sd, min(values), max(values), len(values), figures[0].n)


def _shown(spread: dict[str, Any] | None) -> str:
    if spread is None:
        return "-"
    mean, least, most = (100 * spread[key] for key in ("mean", "least", "most"))
    if spread["sd"] is None:
        return f"{mean:.1f} n={spread['n']}"
    return f"{mean:.1f} ± {100 * spread['sd']:.1f} ({least:.1f} to {most:.1f}) n={spread['n']}"
