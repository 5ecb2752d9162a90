"""What was measured along the curves of a purification."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from sslpurify.curves import Profile
from sslpurify.probes import Rate


@dataclass(frozen=True)
class SweepRates:
    """One point of a curve seen through one probe; as of a `Row`."""

    probe: str
    clean_accuracy: Rate
    attack_success_rate: Rate | None


@dataclass(frozen=True)
class SweepPoint:
    """One point of a curve: its position t in [0, 1], and what each probe says of it."""

    t: float
    results: tuple[SweepRates, ...]


@dataclass(frozen=True)
class SweptStage:
    """One curve.

    Args:
        name: Of its stage.
        chosen: The t that the purification took.
        points: In the order of t.
        profile: What the purification itself saw along the curve, without labels.
    """

    name: str
    chosen: float
    points: tuple[SweepPoint, ...]
    profile: Profile | None

    def to_json(self) -> dict[str, Any]:
        """Plain data; rates are fractions."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SweptStage":
        """The curve that `to_json` made plain data of."""
        return _SWEPT.validate_python(data)


_SWEPT = TypeAdapter(SweptStage)
