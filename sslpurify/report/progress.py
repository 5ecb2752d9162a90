"""Progress for people: a bar on a terminal, a line now and then where there is none."""

import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sslpurify.types import Listener, Step, silent

_LINE_EVERY = 20.0
"""Seconds between two lines of one stage where there is no terminal."""

_COLUMNS = (
    TextColumn("{task.description}", markup=False),
    BarColumn(bar_width=30),
    MofNCompleteColumn(),
    TextColumn("{task.fields[facts]}", markup=False),
    TimeRemainingColumn(),
)


@contextmanager
def progress(stream: IO[str], *, quiet: bool = False, verbose: bool = False) -> Generator[Listener]:
    """A listener that tells ``stream`` how far the work is, and the package's log beside it.

    Args:
        stream: Where it is told, standard error as a rule.
        quiet: Nothing but warnings.
        verbose: A line for every step in place of the bar.

    Yields:
        The listener: stage, step, loss, images a second and the time left in the stage.
    """
    console = Console(file=stream, highlight=False, soft_wrap=True)
    with _log_to(console, logging.WARNING if quiet else logging.INFO):
        if quiet:
            yield silent
        elif console.is_terminal and not verbose:
            with Progress(*_COLUMNS, console=console, transient=True) as bar:
                yield _bar_listener(bar)
        else:
            yield _line_listener(console, every=0.0 if verbose else _LINE_EVERY)


class _Pace:
    """Images and seconds of the stage that runs."""

    def __init__(self) -> None:
        self._stage = ""
        self._images = 0
        self._began = self._last = time.monotonic()

    def take(self, step: Step) -> bool:
        """Count one step; whether it is the first of its stage."""
        first = step.stage != self._stage
        if first:
            self._stage, self._images, self._began = step.stage, 0, self._last
        self._images += step.images
        self._last = time.monotonic()
        return first

    @property
    def seconds(self) -> float:
        return max(self._last - self._began, 1e-9)

    def facts(self, step: Step) -> str:
        loss = "" if step.loss is None else f"loss {step.loss:.3f}  "
        return f"{loss}{self._images / self.seconds:.0f} images/s"


def _bar_listener(bar: Progress) -> Listener:
    pace = _Pace()

    def listen(step: Step) -> None:
        if not step.steps:
            return
        if pace.take(step):
            for task in bar.task_ids:
                bar.remove_task(task)
            bar.add_task(step.stage, total=step.steps, facts="")
        bar.update(bar.task_ids[0], completed=step.step, facts=pace.facts(step))

    return listen


def _line_listener(console: Console, every: float) -> Listener:
    pace = _Pace()
    told = 0.0

    def listen(step: Step) -> None:
        nonlocal told
        if not step.steps:
            return
        first = pace.take(step)
        told = 0.0 if first else told
        if step.step < step.steps and pace.seconds - told < every:
            return
        told = pace.seconds
        left = pace.seconds * (step.steps - step.step) / step.step
        line = f"{step.stage}: {step.step}/{step.steps}  {pace.facts(step)}  {left:.0f} s left"
        console.print(line, markup=False)

    return listen


class _ToConsole(logging.Handler):
    """Log records as plain lines above the bar."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        serious = record.levelno >= logging.WARNING
        self._write(f"{'WARNING: ' * serious}{record.getMessage()}")


@contextmanager
def _log_to(console: Console, level: int) -> Generator[None]:
    handler = _ToConsole(lambda line: console.print(line, markup=False))
    logs = [logging.getLogger(name) for name in ("sslpurify", "py.warnings")]
    before = logs[0].level
    logs[0].setLevel(level)
    logging.captureWarnings(capture=True)
    for log in logs:
        log.addHandler(handler)
    try:
        yield
    finally:
        for log in logs:
            log.removeHandler(handler)
        logging.captureWarnings(capture=False)
        logs[0].setLevel(before)
