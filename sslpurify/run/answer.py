"""What a verb answers."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer twice.

    Args:
        data: For programs; JSON-serializable.
        text: The same for people.
    """

    data: dict[str, Any]
    text: str


FOLLOWER = Answer({}, "")
"""That of a process which leaves the telling to the first one."""
