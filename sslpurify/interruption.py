"""The wish to stop, from SIGINT or SIGTERM: heeded after the step at hand; a second one at once."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from sslpurify.errors import InterruptionError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_wish: list[int] = []


@contextmanager
def heeded(tell: Callable[[str], None]) -> Generator[None]:
    """Turns the first signal into a wish that `wished` knows of, and lets the second end at once.

    What is written is written under another name first, so an end at once leaves nothing half
    done. Only the main thread of a program may use it.

    Args:
        tell: Told that the wish was heard.
    """

    def hear(number: int, _: FrameType | None) -> None:
        _wish.append(number)
        for one in _SIGNALS:  # the system's own answer: Python's waits for the end of an operation
            signal.signal(one, signal.SIG_DFL)
        tell("stopping after this step; again to stop at once")

    before = {number: signal.signal(number, hear) for number in _SIGNALS}
    _wish.clear()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _wish.clear()


def wished() -> int | None:
    """The signal that asked to stop; None: none did."""
    return _wish[0] if _wish else None


def heed() -> None:
    """Stops where nothing has to be saved.

    Raises:
        InterruptionError: Somebody wished so.
    """
    if (number := wished()) is not None:
        raise InterruptionError(number)
