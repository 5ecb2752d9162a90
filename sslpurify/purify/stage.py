"""What happened in each stage of a purification, for the report, and what is kept of its curve."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from sslpurify.curves import Profile
from sslpurify.errors import CheckpointError
from sslpurify.statedict import joined, parted
from sslpurify.symmetry import Sense
from sslpurify.types import Piece, State

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
class Turn:
    """What of a curve's ends the weights do not say.

    Args:
        sense: ``misalign``: the curve runs from the round's weights to their permuted copy.
            ``align``: from their permuted copy to the point taken on the curve before.
        t: Where the point was taken.
        views: Of each clean image, that BatchNorm statistics were measured on.
        permutation: Of the round's weights, as `sslpurify.symmetry.Permutation.to_json` gives it.
    """

    sense: Sense
    t: Annotated[float, Field(ge=0, le=1)]
    views: Annotated[int, Field(ge=1, le=2)]
    permutation: list[Any]


_TURN = TypeAdapter(Turn)


@dataclass(frozen=True, eq=False)
class Trace:
    """What is kept of a stage's curve: enough to walk it again, see `retrace`.

    Args:
        name: Of the stage.
        turn: What of its ends the weights do not say.
        bend: Its trained tensors.
        start: The weights that its round began with; empty where these are those of the stage
            before, or of the suspect.
    """

    name: str
    turn: Turn
    bend: State
    start: State = field(default_factory=dict[str, Tensor])

    def to_piece(self) -> Piece:
        """Itself but for its name, as a journal remembers it."""
        return Piece(joined({"bend": self.bend, "start": self.start}), asdict(self.turn))

    @classmethod
    def from_piece(cls, name: str, piece: Piece) -> "Trace":
        """The trace that `to_piece` made a piece of.

        Raises:
            CheckpointError: It is nothing of the kind.
        """
        try:
            turn = _TURN.validate_python(piece.facts)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise CheckpointError(
                f"the trace of {name!r} is damaged: {first['loc']}: {first['msg']}"
            ) from None
        parts = parted(piece.tensors)
        return cls(name, turn, parts["bend"], parts["start"])


@dataclass(frozen=True, eq=False)
class Trained:
    """Weights, what happened to them, and what is kept of the curves on the way."""

    weights: State
    stages: tuple[Stage, ...] = ()
    traces: tuple[Trace, ...] = ()

    def then(self, later: "Trained") -> "Trained":
        """What was trained later, with what happened before it."""
        return Trained(later.weights, self.stages + later.stages, self.traces + later.traces)

    def to_piece(self) -> Piece:
        """Itself, as a journal remembers it."""
        pieces = {trace.name: trace.to_piece() for trace in self.traces}
        traces = joined({name: piece.tensors for name, piece in pieces.items()})
        facts = {
            "stages": [stage.to_json() for stage in self.stages],
            "traces": {name: piece.facts for name, piece in pieces.items()},
        }
        return Piece(joined({"weights": self.weights, "traces": traces}), facts)

    @classmethod
    def from_piece(cls, piece: Piece) -> "Trained":
        """What `to_piece` made a piece of."""
        parts = parted(piece.tensors)
        kept = parted(parts["traces"])
        traces = tuple(
            Trace.from_piece(name, Piece(kept[name], facts))
            for name, facts in piece.facts["traces"].items()
        )
        stages = tuple(map(Stage.from_json, piece.facts["stages"]))
        return cls(parts["weights"], stages, traces)


@dataclass(frozen=True)
class Purified:
    """A purified state, with the names and dtypes of the state that was given, and its trace.

    Args:
        state: The weights.
        stages: What happened.
        traces: What is kept of every curve, in their order.
    """

    state: dict[str, Tensor]
    stages: tuple[Stage, ...]
    traces: tuple[Trace, ...] = ()
