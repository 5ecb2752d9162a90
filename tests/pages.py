"""Pages of the documentation as programs: their blocks run in order, as a reader would."""

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import Result

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(.*)\n((?s:.*?))^```$", re.MULTILINE)
_INFO = re.compile(r'(python|console|yaml)(?: title="([\w.-]+)")?')

Cli = Callable[..., Result]


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file it is shown as, if any, and its text."""

    language: str
    title: str | None
    text: str


@dataclass(frozen=True)
class Small:
    """What makes a page's work small.

    Args:
        words: What the page says -> what is run instead. Each must be on the page.
        flags: Added to the commands of a verb.
    """

    words: Mapping[str, str]
    flags: Mapping[str, list[str]]


def pages() -> list[str]:
    """Every page, relative to the repository."""
    found = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def blocks(page: str) -> list[Block]:
    """The blocks that run; one that does not must be called ``text``."""
    return [*_blocks((ROOT / page).read_text("utf-8"), page)]


def _blocks(text: str, page: str) -> Iterator[Block]:
    found = _BLOCK.findall(text)
    fences = re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)
    assert len(fences) == 2 * len(found), f"{page}: a block is not closed, or is indented"
    for info, body in found:
        if info != "text":
            match = _INFO.fullmatch(info)
            assert match, f"{page}: {info!r} is neither run nor called text"
            yield Block(match[1], match[2], body)


def run_page(page: str, small: Small, cli: Cli) -> None:
    """Runs the blocks of a page in the working directory, one namespace for all its Python."""
    text = (ROOT / page).read_text("utf-8")
    for word in small.words:
        assert word in text, f"{page} no longer says {word!r}"
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        said = block.text
        for word, instead in small.words.items():
            said = said.replace(word, instead)
        if block.title is not None:
            Path(block.title).write_text(said, "utf-8")
        if block.language == "python":
            exec(compile(said, page, "exec"), names)  # noqa: S102 - our own pages
        elif block.language == "console":
            run_console(said, small, cli)
        else:
            assert block.title, f"{page}: a YAML block is run by a command that reads its file"


def run_console(text: str, small: Small, cli: Cli) -> None:
    """Runs the commands, which begin with ``$``; what stands below one must be in its output."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = re.sub(r"\\\n\s*", "", part).partition("\n")
        output, code = _run(shlex.split(command, comments=True), small, cli)
        expected = [" ".join(line.split()) for line in shown.splitlines() if line.strip()]
        failing = any(line.startswith("sslpurify: ") for line in expected)
        assert (code != 0) == failing, f"$ {command}\n{output}"
        for line in expected:
            assert line in " ".join(output.split()), f"$ {command}\n{output}"


def _run(words: list[str], small: Small, cli: Cli) -> tuple[str, int]:
    if words[0] == "sslpurify":
        result = cli(*words[1:], *small.flags.get(words[1], ()))
        return result.output, result.exit_code
    if words[0] == "make":  # that there is such a target; what it does takes minutes
        words = ["make", "--directory", str(ROOT), "--dry-run", *words[1:]]
    else:
        assert words[0] == "cmp", words
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr, done.returncode
