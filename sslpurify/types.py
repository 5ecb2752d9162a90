"""The few types that every layer shares."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

State = Mapping[str, Tensor]
"""Weights in memory: tensor name -> tensor. Never changed in place by a public function."""


@dataclass(frozen=True)
class Step:
    """One step of a long piece of work, as told to a listener.

    Args:
        stage: What is running, for people: ``"round 1 · stage 1 · curve"``.
        step: Steps done, from 1 to ``steps``.
        steps: Steps in this stage.
        images: Images processed in this step.
        loss: Loss of this step, or None where the work has none.
    """

    stage: str
    step: int
    steps: int
    images: int
    loss: float | None = None


Listener = Callable[[Step], None]
"""Told about every step; must not change anything."""


def silent(_: Step) -> None:
    """The listener of those who do not listen."""
