"""What happened in each stage of a purification, for the report."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter
from torch import Tensor

from sslpurify.curves import Profile

Kind = Literal["head", "finetune", "curve"]


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        name: For people: ``round 1 · stage 2``.
        kind: What was trained.
        seconds: How long it took, in the process that finished it.
        loss: Mean label-free loss over the first and the last tenth of its steps.
        t: Where the point was taken; None if there was no curve.
        profile: What the curve looks like; None if there was none.
        displacement: By permutation group: share of units that were moved.
    """

    name: str
    kind: Kind
    seconds: float
    loss: tuple[float, float]
    t: float | None = None
    profile: Profile | None = None
    displacement: Mapping[str, float] = field(default_factory=dict[str, float])

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Stage":
        """The stage that `to_json` made plain data of."""
        return _STAGE.validate_python(data)


_STAGE = TypeAdapter(Stage)


@dataclass(frozen=True)
class Purified:
    """A purified state, with the names and dtypes of the state that was given, and its trace."""

    state: dict[str, Tensor]
    stages: tuple[Stage, ...]
