"""What a browser makes of a page: its elements in order, and a real one where there is one."""

import shutil
import subprocess
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync"
)


@dataclass
class Elements(HTMLParser):
    """All elements of a page with their attributes, its text, and tags left open."""

    found: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""
    stack: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("img", "meta"):
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("img", "meta"):
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        """Attributes of every element of a kind."""
        return [attributes for name, attributes in self.found if name == tag]


def parsed(html: str) -> Elements:
    """The page as a browser's parser sees it; every tag is closed in its order."""
    elements = Elements()
    elements.feed(html)
    elements.close()
    assert elements.stack == []
    return elements


def browser() -> str:
    """A Chromium, or the test is skipped for all to see."""
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser on this machine ({', '.join(_BROWSERS)})")
    return found


def browse(page: Path, folder: Path, *flags: str) -> str:
    """Standard output of a headless browser that opens a page, with a profile of its own."""
    command = [browser(), *_QUIET.split(), f"--user-data-dir={folder / 'profile'}", *flags]
    done = subprocess.run(
        [*command, page.resolve().as_uri()], capture_output=True, text=True, timeout=300, check=True
    )
    return done.stdout
