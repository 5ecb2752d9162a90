"""Stopping where there is nothing to save."""

from sslpurify.interruption import heed
from sslpurify.types import Listener, Step


def stoppable(listener: Listener) -> Listener:
    """A listener that raises `InterruptionError` after a step, if somebody wishes to stop."""

    def listen(step: Step) -> None:
        listener(step)
        heed()

    return listen
