"""How a report's page puts numbers and names; per cent for people, as in the tables."""

from collections.abc import Mapping
from typing import Any

from sslpurify.report.page import NONE, Cell

ENCODERS = {"before": "before", "after": "after", "reference": "never attacked"}
PROBES = {"knn": "kNN", "linear": "linear probe", "mlp": "MLP probe", "zeroshot": "zero-shot"}
PROTOCOLS = {
    "exclude-target": "Images of the target class are left out (protocol exclude-target).",
    "all": "Images of the target class count as well (protocol all), which raises the rate by "
    "about the target's share of the images.",
}
Record = Mapping[str, Any]
"""A run's ``report.json``."""


def rate_cell(rate: Record | None) -> Cell:
    """A rate as per cent, its interval and count in small print."""
    if rate is None:
        return NONE
    low, high = (f"{100 * rate[end]:.1f}" for end in ("low", "high"))
    return Cell(f"{100 * rate['value']:.1f}", f"{low} to {high}, n {rate['n']:,}")


def per_cent(rate: Record) -> str:
    """A rate's value alone: ``46.4``."""
    return f"{100 * rate['value']:.1f}"


def slug(name: str) -> str:
    """A stage's name as part of a file's name."""
    return "-".join(
        "".join(c if c.isascii() and c.isalnum() else " " for c in name.lower()).split()
    )
