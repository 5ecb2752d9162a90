import io
import logging
import warnings

import pytest

from sslpurify.report import progress
from sslpurify.types import Step


class Stream(io.TextIOWrapper):
    """Standard error as a terminal or a file would have it."""

    name, mode = "<stderr>", "w"

    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def getvalue(self) -> str:
        return self.buffer.getvalue().decode()


def steps(stage: str, count: int = 5) -> list[Step]:
    return [Step(stage, step + 1, count, 8, 2.5) for step in range(count)]


def test_without_a_terminal_a_stage_ends_with_a_line() -> None:
    stream = Stream()
    with progress(stream) as listener:
        for step in (*steps("one"), *steps("two", 3)):
            listener(step)
    lines = stream.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines] == ["one", "two"]
    assert lines[0].startswith("one: 5/5  loss 2.500  ")
    assert "images/s" in lines[0]


def test_verbose_tells_every_step_and_quiet_none() -> None:
    told, untold = Stream(), Stream()
    with progress(told, verbose=True) as verbose, progress(untold, quiet=True) as quiet:
        for step in steps("one"):
            verbose(step)
            quiet(step)
    assert len(told.getvalue().splitlines()) == 5
    assert untold.getvalue() == ""


def test_a_terminal_gets_a_bar_that_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Stream(terminal=True)
    with progress(stream) as listener:
        for step in steps("round 1 · stage 1"):
            listener(step)
    assert "round 1 · stage 1" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()


def test_log_and_warnings_go_to_the_same_stream_until_it_ends() -> None:
    stream, log = Stream(), logging.getLogger("sslpurify.run.loading")
    with progress(stream):
        log.info("a decision, [not markup]")
        log.warning("look out")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(capture=True)
            warnings.warn("from below", stacklevel=1)
    log.warning("too late")
    told = stream.getvalue()
    assert "a decision, [not markup]\n" in told
    assert "WARNING: look out" in told
    assert "from below" in told
    assert "too late" not in told


def test_quiet_keeps_warnings() -> None:
    stream, log = Stream(), logging.getLogger("sslpurify.run.loading")
    with progress(stream, quiet=True):
        log.info("a decision")
        log.warning("look out")
    assert stream.getvalue() == "WARNING: look out\n"
