"""Rates with their counts and intervals: clean accuracy, attack success rate, the attack's gate."""

from dataclasses import dataclass
from math import sqrt
from typing import Literal

import torch
from jaxtyping import Bool, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sslpurify.errors import DataError, GateError

Protocol = Literal["exclude-target", "all"]
"""Which triggered images count: those of other classes than the target, or all of them."""

_Z = 1.959963984540054  # two-sided 95 %


@dataclass(frozen=True)
class Rate:
    """A share of ``n`` images with its 95 % interval, all as fractions.

    Args:
        value: The share, in [0, 1].
        low: Lower end of the Wilson interval.
        high: Upper end of the Wilson interval.
        n: Number of images it is a share of, at least 1.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """For people, in per cent: ``46.3 % (44.1 to 48.5, n = 2000)``."""
        low, high = 100 * self.low, 100 * self.high
        return f"{_per_cent(self.value)} ({low:.1f} to {high:.1f}, n = {self.n})"


@dataclass(frozen=True, eq=False)
class Hits:
    """Which of some images something happened to, and which class each is of.

    Args:
        happened: Whether it did; in the order of the test images.
        labels: Classes of the same images.
    """

    happened: Bool[Tensor, " n"]
    labels: Int[Tensor, " n"]

    def rate(self) -> Rate:
        """The share it happened to.

        Raises:
            DataError: There are no images.
        """
        return wilson(int(self.happened.sum()), len(self.labels))

    def rates_by_class(self, classes: int) -> tuple[Rate | None, ...]:
        """The share of every class, in the order of the classes; None for one without images."""
        hits = torch.bincount(self.labels[self.happened], minlength=classes).tolist()
        totals = torch.bincount(self.labels, minlength=classes).tolist()
        return tuple(
            wilson(hit, total) if total else None for hit, total in zip(hits, totals, strict=True)
        )


@dataclass(frozen=True, eq=False)
class Measurement:
    """What one probe says of one encoder.

    Args:
        correct: Which clean test images were given their own class.
        fooled: Which triggered ones, of those that count, were given the target class; None where
            no trigger was given.
    """

    correct: Hits
    fooled: Hits | None = None

    @property
    def clean_accuracy(self) -> Rate:
        """Share of clean test images given their own class."""
        return self.correct.rate()

    @property
    def attack_success_rate(self) -> Rate | None:
        """Share of triggered test images given the target class."""
        return None if self.fooled is None else self.fooled.rate()


class Gate(BaseModel):
    """The floors an attack must reach before a defence may be measured on it, as fractions.

    Attributes:
        min_attack_success_rate: Least attack success rate of the victim.
        min_clean_accuracy: Least clean accuracy of the victim.
        max_accuracy_drop: Most clean accuracy lost against the clean encoder, from before the
            attack.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_attack_success_rate: float = Field(default=0.9, ge=0, le=1)
    min_clean_accuracy: float = Field(default=0.0, ge=0, le=1)
    max_accuracy_drop: float = Field(default=0.02, ge=0, le=1)


def wilson(successes: int, n: int) -> Rate:
    """The share ``successes / n`` with Wilson's score interval (Wilson 1927), 95 %.

    Raises:
        DataError: When there is nothing to count.
    """
    if n < 1:
        raise DataError("a rate of no images was asked for: the evaluated set is empty")
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    share = successes / n
    centre = share + _Z**2 / (2 * n)
    margin = _Z * sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    # Rounding must not push the interval off the ends it touches exactly.
    low = 0.0 if successes == 0 else (centre - margin) / scale
    high = 1.0 if successes == n else (centre + margin) / scale
    return Rate(share, low, high, n)


def correct(predictions: Int[Tensor, " n"], labels: Int[Tensor, " n"]) -> Hits:
    """Which clean images are given their own class."""
    return Hits(predictions == labels, labels)


def fooled(
    predictions: Int[Tensor, " n"],
    labels: Int[Tensor, " n"],
    target: int,
    protocol: Protocol = "exclude-target",
) -> Hits:
    """Which triggered images, of those that count, are given the target class.

    Args:
        predictions: Classes predicted for the triggered images.
        labels: True classes of the same images before the trigger.
        target: The attacker's class.
        protocol: ``exclude-target`` leaves out images of the target class; ``all`` counts every
            image (BadEncoder and CTRL), which raises a low rate by about the target's share.

    Raises:
        DataError: When no image counts, for example because all are of the target class.
    """
    counted = torch.ones_like(labels, dtype=torch.bool) if protocol == "all" else labels != target
    if not counted.any():
        raise DataError(
            f"no image counts for the attack success rate ({protocol}): "
            f"all {len(labels)} test images are of target class {target}"
        )
    return Hits(predictions[counted] == target, labels[counted])


def near_chance(rate: Rate, classes: int) -> bool:
    """Whether a clean accuracy can hardly be told from guessing: the checkpoint may be mis-loaded.

    True when the interval reaches down to half as much again as chance (at most 5 points above).
    """
    chance = 1 / classes
    return rate.low <= chance + min(chance / 2, 0.05)


def require_gate(before: Measurement, after: Measurement, gate: Gate) -> None:
    """Refuse a victim whose attack did not embed.

    Args:
        before: The clean encoder the attack started from.
        after: The victim, measured in the same way.
        gate: The recipe's floors.

    Raises:
        GateError: Naming every floor that was missed, with values, intervals and counts.
    """
    success, accuracy = after.attack_success_rate, after.clean_accuracy
    if success is None:
        raise ValueError("a gate needs the victim's attack success rate")
    drop = before.clean_accuracy.value - accuracy.value
    missed: list[str] = []
    if success.value < gate.min_attack_success_rate:
        missed.append(
            f"attack success rate {success}, floor {_per_cent(gate.min_attack_success_rate)}"
        )
    if accuracy.value < gate.min_clean_accuracy:
        missed.append(f"clean accuracy {accuracy}, floor {_per_cent(gate.min_clean_accuracy)}")
    if drop > gate.max_accuracy_drop:
        missed.append(
            f"clean accuracy fell by {100 * drop:.1f} points from {before.clean_accuracy} to "
            f"{accuracy}, at most {100 * gate.max_accuracy_drop:.1f} are allowed"
        )
    if missed:
        lines = "\n".join(f"- {line}" for line in missed)
        raise GateError(
            f"the attack did not embed:\n{lines}\n"
            f"victim: clean accuracy {accuracy}, attack success rate {success}\n"
            f"clean encoder: clean accuracy {before.clean_accuracy}, "
            f"attack success rate {before.attack_success_rate}"
        )


def _per_cent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
