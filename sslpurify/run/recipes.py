"""The ``recipe`` verbs."""

from collections.abc import Sequence
from pathlib import Path

from sslpurify.errors import ConfigError
from sslpurify.recipe import check
from sslpurify.recipe.shipped import find, names, purpose
from sslpurify.report import grid
from sslpurify.run.answer import Answer


def list_recipes() -> Answer:
    """Every shipped recipe with its purpose."""
    purposes = {name: purpose(find(name)) for name in names()}
    return Answer({"recipes": purposes}, grid([], list(purposes.items())))


def show_recipe(name: str) -> Answer:
    """A shipped recipe's text."""
    text = find(name).read_text(encoding="utf-8")
    return Answer({"name": name, "text": text}, text.rstrip())


def check_recipes(files: Sequence[Path]) -> Answer:
    """Validate recipe files.

    Raises:
        ConfigError: With every problem of every file.
    """
    problems: list[str] = []
    for file in files:
        try:
            check(file)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return Answer({"valid": [str(file) for file in files]}, f"{len(files)} valid")


def copy_recipe(name: str, to: Path) -> Answer:
    """Copy a shipped recipe to a new file, or into a folder.

    Raises:
        ConfigError: The file exists, or its folder does not.
    """
    source = find(name)
    target = to / source.name if to.is_dir() else to
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        raise ConfigError(f"{target} exists; name another file") from None
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror}") from None
    return Answer({"output": str(target)}, str(target))
