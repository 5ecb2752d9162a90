"""An image source with its captions, and what a caption must be."""

from dataclasses import dataclass

from sslpurify.data.sources import Source

MAX_CAPTION = 2**16
"""Most characters of a caption; text encoders read some three hundred."""


@dataclass(frozen=True)
class Pair:
    """What an image is read from, with its alternative captions."""

    source: Source
    captions: tuple[str, ...]


def caption(text: str) -> str:
    """A caption without the white space around it; what looks like a number stays text.

    Raises:
        ValueError: Empty, longer than `MAX_CAPTION`, or with code points that are no characters;
            the text goes on "the caption ...".
    """
    text = text.strip()
    if not text:
        raise ValueError("is empty")
    if len(text) > MAX_CAPTION:
        raise ValueError(f"is longer than {MAX_CAPTION:,} characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("has half a surrogate pair in it") from None
    return text
