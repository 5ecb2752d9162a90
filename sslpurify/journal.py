"""What a long piece of work remembers, so that it can go on where it was interrupted.

Progress flows up, memory flows down: work tells a listener of every step, with where it stands;
and it asks the journal what an earlier process already did.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from sslpurify.types import Piece


class Journal(ABC):
    """A memory that may outlive the process."""

    @abstractmethod
    def once(self, name: str, work: Callable[[], Piece]) -> Piece:
        """What ``work`` leaves: done now, or remembered from an earlier process.

        Pieces may be made of pieces; once the whole is there, its parts are forgotten.

        Args:
            name: Of the piece, unique in a run.
            work: Does it; a function of the run's inputs alone.
        """

    @abstractmethod
    def begun(self, stage: str) -> Piece | None:
        """Where an interrupted stage stood, as its last step told; None: it starts anew."""


class _Forgetful(Journal):
    """Everything is done now."""

    def once(self, name: str, work: Callable[[], Piece]) -> Piece:  # noqa: ARG002
        return work()

    def begun(self, stage: str) -> Piece | None:  # noqa: ARG002
        return None


FORGETFUL: Journal = _Forgetful()
"""The journal of those who do not keep one."""
