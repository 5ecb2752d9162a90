"""How a report's page puts numbers and names; per cent for people, as in the tables."""

from collections.abc import Mapping
from typing import Any

from sslpurify.report.page.elements import NONE, Cell

ENCODERS = {"before": "before", "after": "after", "reference": "never attacked"}
PROBES = {"knn": "kNN", "linear": "linear probe", "mlp": "MLP probe", "zeroshot": "zero-shot"}
PROBERS = {
    "knn": "the kNN probe",
    "linear": "the linear probe",
    "mlp": "the MLP probe",
    "zeroshot": "zero-shot classification",
}
PROTOCOLS = {
    "exclude-target": "Images of the target class are left out (protocol exclude-target).",
    "all": "Images of the target class count as well (protocol all): a rate near 0 rises by about "
    "the target's share of the images, one near 100 % stays.",
}
Record = Mapping[str, Any]
"""A run's ``report.json``."""


def rate_cell(rate: Record | None) -> Cell:
    """A rate as per cent, its interval and count in small print."""
    if rate is None:
        return NONE
    low, high = (f"{100 * rate[end]:.1f}" for end in ("low", "high"))
    return Cell(per_cent(rate), f"{unbroken(f'{low} to {high}')}, {count(rate)}")


def per_cent(rate: Record) -> str:
    """A rate's value alone: ``46.4``."""
    return f"{100 * rate['value']:.1f}"


def count(rate: Record) -> str:
    """Of how many images a rate is a share."""
    return unbroken(f"n {rate['n']:,}")


def share(fraction: float) -> str:
    """A fraction in whole per cent."""
    return unbroken(f"{100 * fraction:.0f} %")


def unbroken(text: str) -> str:
    """Text that stays on one line, its hyphens, which are those of numbers, as minus signs."""
    return text.replace(" ", "\u00a0").replace("-", "−")


def slug(name: str) -> str:
    """A stage's name as part of a file's name."""
    return "-".join(
        "".join(c if c.isascii() and c.isalnum() else " " for c in name.lower()).split()
    )
