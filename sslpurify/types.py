"""The few types that every layer shares."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

State = Mapping[str, Tensor]
"""Weights in memory: tensor name -> tensor. Never changed in place by a public function."""


@dataclass(frozen=True, eq=False)
class Piece:
    """What a piece of work leaves, or where it stands.

    Args:
        tensors: By name.
        facts: Plain JSON data.
    """

    tensors: State = field(default_factory=dict[str, Tensor])
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Step:
    """One step of a long piece of work, as told to a listener.

    Args:
        stage: What is running, for people: ``"round 1 · stage 1 · curve"``.
        step: Steps done, from 1 to ``steps``.
        steps: Steps in this stage; 0: this is no step, only a sign of life within one.
        images: Images processed in this step.
        loss: Loss of this step, or None where the work has none.
        state: Gives where the work stands after this step, from which it can go on; only valid
            while the listener runs. None: interrupted here, the stage starts anew.
    """

    stage: str
    step: int
    steps: int
    images: int
    loss: float | None = None
    state: Callable[[], Piece] | None = field(default=None, compare=False, repr=False)


Listener = Callable[[Step], None]
"""Told about every step; must not change anything."""


def silent(_: Step) -> None:
    """The listener of those who do not listen."""
