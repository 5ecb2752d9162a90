"""Class names and prompt templates: published sets, the user's files, and which folder is which."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sslpurify.data.folder import printable
from sslpurify.data.sources import opened
from sslpurify.errors import ConfigError, DataError

PromptSetName = Literal["cifar10", "cifar100", "food101", "gtsrb", "imagenet", "stl10", "svhn"]
"""Data sets whose names and templates come with the package."""

SIMPLE_TEMPLATES = ("a photo of a {}.",)
"""What to say of things whose kind is unknown."""

MAX_BYTES = 2**20
"""Most bytes of a file of names or templates."""

MAX_LINES = 2**16
"""Most names or templates in a file."""

MAX_LENGTH = 500
"""Most characters of a name or template; a text encoder reads some three hundred."""

_PUBLISHED = Path(__file__).parent / "prompts.json"


@dataclass(frozen=True)
class PromptSet:
    """How the classes of one data set are called in prompts.

    Args:
        classes: Their names, in the order of the data set's labels.
        templates: Texts with exactly one ``{}``, where the name goes.
        folders: What else the class folders may be called, in the same order; may be empty.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    folders: tuple[str, ...] = ()


def prompt_set(name: str) -> PromptSet:
    """The published names and templates of a data set, one of `PromptSetName`.

    Sources: those of CIFAR, Food-101, GTSRB and STL-10 are the CLIP paper's (Radford et al. 2021,
    ``data/prompts.md`` of its repository); ImageNet's come with open_clip; SVHN, which the paper
    gives none for, has its digits and templates for house numbers.

    Raises:
        ConfigError: No such set.
    """
    if name not in get_args(PromptSetName):
        known = ", ".join(get_args(PromptSetName))
        raise ConfigError(f"no prompt set '{printable(name)}': there are {known}")
    if name == "imagenet":
        return _imagenet()
    found: dict[str, list[str]] = json.loads(_PUBLISHED.read_text("utf-8"))[name]
    return PromptSet(**{key: tuple(values) for key, values in found.items()})


def read_names(path: Path) -> tuple[str, ...]:
    """Class names from a file: one a line, or a JSON list of texts (``.json``).

    Raises:
        DataError: Missing, too large, not UTF-8 or JSON; a name is empty, too long or there twice.
    """
    return _checked(path, "class name")


def read_templates(path: Path) -> tuple[str, ...]:
    """Prompt templates from a file, one a line or as a JSON list, each with exactly one ``{}``.

    Raises:
        DataError: As `read_names`; or a template has not exactly one ``{}``.
    """
    templates = _checked(path, "template")
    for number, template in enumerate(templates, start=1):
        if template.count("{}") != 1:
            raise DataError(
                f"{printable(path)}, line {number}: '{printable(template)}' must have exactly one "
                "{}, where the class name goes"
            )
    return templates


def class_prompts(classes: Sequence[str], templates: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """For every class, every template with the class's name in it.

    Raises:
        ConfigError: There are no templates, or one has not exactly one ``{}``.
    """
    if not templates:
        raise ConfigError("no prompt templates: give at least one, such as 'a photo of a {}.'")
    for template in templates:
        if template.count("{}") != 1:
            raise ConfigError(
                f"prompt template '{printable(template)}': must have exactly one {{}}"
            )
    return tuple(tuple(each.replace("{}", name) for each in templates) for name in classes)


def names_of_folders(prompts: PromptSet, folders: Sequence[str]) -> tuple[str, ...]:
    """The class name of every folder, in the order of the folders.

    Folders are recognised, all in the same way, by their class's name (case, underscores, hyphens
    and signs do not matter), by its other spelling in the set (ImageNet's WordNet numbers), or by
    its number from 0 on, with or without leading zeros (GTSRB's ``00000``).

    Raises:
        DataError: Folders and classes are not one to one. Rates over some of the classes are not
            comparable with published ones, so the names of a part must be given in a file.
    """
    classes, wanted = prompts.classes, len(prompts.classes)
    numbers = [str(number) for number in range(wanted)]
    for spellings in (classes, prompts.folders, numbers):
        known = {_plain(spelling): place for place, spelling in enumerate(spellings)}
        keys = [_plain(folder) for folder in folders]
        if spellings is numbers:
            keys = [
                key.lstrip("0") or "0" if key.isascii() and key.isdigit() else "" for key in keys
            ]
        places = [known[key] for key in keys if key in known]
        if len(known) == len(folders) == len(set(places)) == wanted:
            return tuple(classes[place] for place in places)
    raise DataError(
        f"class folders and class names do not match. {len(folders)} folders: {_listed(folders)}. "
        f"{wanted} names: {_listed(classes)}. Rename the folders, or give a file of class names"
    )


def vocabulary() -> tuple[str, ...]:
    """Prompts for about a thousand everyday things: the classes of ImageNet and CIFAR-100."""
    names = (*prompt_set("imagenet").classes, *prompt_set("cifar100").classes)
    chosen: dict[str, str] = {}
    for name in names:
        chosen.setdefault(name.casefold(), name)
    return tuple(prompt for (prompt,) in class_prompts(tuple(chosen.values()), SIMPLE_TEMPLATES))


def _imagenet() -> PromptSet:
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES
    from timm.data.imagenet_info import ImageNetInfo

    templates = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    wordnet = tuple(ImageNetInfo("imagenet-1k").label_names())
    return PromptSet(tuple(IMAGENET_CLASSNAMES), templates, wordnet)


def _checked(path: Path, what: str) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    for number, line in enumerate(_lines(path, what), start=1):
        text = line.strip()
        where = f"{printable(path)}, line {number}"
        if not text:
            raise DataError(f"{where}: empty, where a {what} should be")
        if len(text) > MAX_LENGTH:
            raise DataError(f"{where}: the {what} is longer than {MAX_LENGTH} characters")
        if not text.isprintable():
            raise DataError(f"{where}: the {what} '{printable(text)}' has unprintable characters")
        if text in seen:
            raise DataError(f"{where}: {text!r} stands in line {seen[text]} already")
        if number > MAX_LINES:
            raise DataError(f"{where}: at most {MAX_LINES:,} of a {what} are read")
        seen[text] = number
    if not seen:
        raise DataError(f"{printable(path)} is empty: give one {what} a line")
    return tuple(seen)


def _lines(path: Path, what: str) -> list[str]:
    try:
        with opened(path) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{printable(path)}: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{printable(path)}: longer than {MAX_BYTES:,} bytes, so no {what} list")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(path)}: not UTF-8 at byte {error.start:,}") from None
    if path.suffix.lower() != ".json":
        return re.split(r"\r\n|\r|\n", text.rstrip("\r\n")) if text.strip() else []
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{printable(path)}: not valid JSON: {error}") from None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise DataError(f'{printable(path)}: must be a JSON list of texts, such as ["cat", "dog"]')
    return found


def _plain(name: str) -> str:
    return " ".join(re.findall(r"\w+", name.replace("_", " ").casefold()))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name[:60]) for name in names[:12])
    return shown + (", ..." if len(names) > 12 else "")
