"""How well an architecture's names and shapes fit a state dict, under each prefix."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sslpurify.encoders.encoder import Encoder, Spelling
from sslpurify.encoders.head import COUNTER
from sslpurify.statedict import listing
from sslpurify.symmetry.spec import Shapes
from sslpurify.types import State

_MAX_COPIES = 8
_FIRST = {"online", "query", "q", "student", "base"}
_LAST = {"target", "key", "k", "teacher", "momentum", "ema", "averaged", "swa", "shadow"}
_COUNTED = "position_ids"
"""0, 1, 2, ...: transformers before 4.31 wrote it into files."""


@dataclass(frozen=True)
class Fit:
    """What of an architecture lies under one prefix, by one spelling of its names."""

    prefix: str
    spelling: Spelling
    matched: int
    missing: tuple[str, ...]
    misshaped: tuple[str, ...]
    surplus: tuple[str, ...]

    @property
    def confidence(self) -> float:
        """Share of its tensors that are there with the right shape, lowered by the surplus."""
        wrong = len(self.missing) + len(self.misshaped) + len(self.surplus)
        return self.matched / (self.matched + wrong)


def fits_of(tensors: State, encoder: Encoder) -> list[Fit]:
    """How the architecture fits under the few prefixes that match most of its names."""
    found: list[Fit] = []
    for spelling in ({}, *encoder.spellings):
        expected = {spelling.get(name, name): shape for name, shape in encoder.shapes.items()}
        depth = max(name.count(".") for name in expected) + 1
        counts = Counter(
            prefix for key in tensors for prefix, name in _splits(key, depth) if name in expected
        )
        found += [
            _fit(tensors, expected, prefix, spelling)
            for prefix, _ in counts.most_common(_MAX_COPIES)
        ]
    return found


def _splits(key: str, depth: int) -> Iterator[tuple[str, str]]:
    """Every way to take a key apart into a prefix and a name of at most ``depth`` parts."""
    parts = key.split(".")[-depth:]
    for start in range(len(parts)):
        name = ".".join(parts[start:])
        yield key[: len(key) - len(name)], name


def _fit(tensors: State, expected: Shapes, prefix: str, spelling: Spelling) -> Fit:
    stages = {name.partition(".")[0] for name in expected}
    names = [key.removeprefix(prefix) for key in tensors if key.startswith(prefix)]
    shaped = {name: tuple(tensors[prefix + name].shape) for name in names if name in expected}
    return Fit(
        prefix=prefix,
        spelling=spelling,
        matched=sum(shape == expected[name] for name, shape in shaped.items()),
        missing=tuple(
            name for name in expected if name not in shaped and not name.endswith(COUNTER)
        ),
        misshaped=tuple(name for name, shape in shaped.items() if shape != expected[name]),
        surplus=tuple(
            name
            for name in names
            if name not in expected
            and name.partition(".")[0] in stages
            and not name.endswith(_COUNTED)
        ),
    )


def best_of(complete: Sequence[Fit]) -> list[Fit]:
    """Those of several complete encoders whose name says most clearly that it is the one in use."""
    ranks = [_rank(fit.prefix) for fit in complete]
    return [fit for fit, rank in zip(complete, ranks, strict=True) if rank == min(ranks)]


def _rank(prefix: str) -> int:
    words = set(re.split(r"[._]", prefix.lower()))
    return 2 if words & _LAST else 0 if words & _FIRST else 1


def problems_of(fit: Fit | None, tensors: State, expected: Shapes) -> str:
    """What is wrong with the best of the fits, in one sentence; None: there is none at all."""
    if fit is None:
        return f"none of its names is there, the file begins with {listing(tensors, 3)}"
    shapes = (
        f"{name!r} is {tuple(tensors[fit.prefix + name].shape)} and not {expected[name]}"
        for name in fit.misshaped[:3]
    )
    more = len(fit.misshaped) - 3
    problems = (
        f"under the prefix {fit.prefix[:80]!r} {fit.matched} of {len(expected)} tensors fit",
        *([f"missing are {listing(fit.missing, 3)}"] if fit.missing else []),
        *shapes,
        *([f"{more} more are of another shape"] if more > 0 else []),
        *([f"{listing(fit.surplus, 3)} do not belong to it"] if fit.surplus else []),
    )
    return "; ".join(problems)
