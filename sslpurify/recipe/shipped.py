"""The recipes that come with the package."""

from itertools import takewhile
from pathlib import Path

from sslpurify.errors import ConfigError

_PACKAGE = Path(__file__).parents[1]


def folder() -> Path:
    """Where the recipes lie: inside an installed wheel, or in the checkout of a developer."""
    inside = _PACKAGE / "recipes"
    return inside if inside.is_dir() else _PACKAGE.parent / "recipes"


def names() -> list[str]:
    """The shipped recipes' names, e.g. ``purify/tsc_simclr_resnet18_cifar10``."""
    root = folder()
    return sorted(p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*.yaml"))


def find(name: str) -> Path:
    """The file of a shipped recipe by its name, with or without ``.yaml``.

    Raises:
        ConfigError: No shipped recipe has that name.
    """
    wanted = name.removesuffix(".yaml").removeprefix("recipes/")
    if wanted not in names():
        raise ConfigError(
            f"no recipe {name!r} comes with sslpurify; there are: {', '.join(names())}"
        )
    return folder() / f"{wanted}.yaml"


def purpose(path: Path) -> str:
    """What a recipe is for: the first paragraph of the comment it opens with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in takewhile(lambda line: line.strip("# "), lines))
