"""From a file, ``--set`` and flags to one validated recipe, or to all that is wrong with it."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from sslpurify.data.folder import printable
from sslpurify.errors import ConfigError, SslPurifyError
from sslpurify.recipe.schema import RECIPES, Recipe
from sslpurify.strict_yaml import MAX_BYTES, parse

R = TypeVar("R", bound=BaseModel)


def load(
    model: type[R],
    path: Path | None = None,
    *,
    settings: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> R:
    """One validated recipe: flags win over ``settings``, these over the file, it over defaults.

    Args:
        model: The recipe of the verb, e.g. ``PurifyRecipe``.
        path: A YAML file, or None for no file.
        settings: Overrides ``key=value`` or ``block.key=value``; values are read as YAML.
        flags: Values of the command line under their keys; a None was not given.
        defaults: Win over the model's own.

    Raises:
        ConfigError: With every problem found, each under its key path.
        UnsafeInputError: The file holds more than plain data.
    """
    tree = dict(defaults or {}) | (read_tree(path) if path else {})
    for setting in settings:
        _override(tree, setting)
    tree |= {key: value for key, value in (flags or {}).items() if value is not None}
    return validate(model, tree, str(path) if path else "the command line")


def check(path: Path) -> Recipe:
    """Read a recipe of any verb; its ``verb`` key says which."""
    tree = read_tree(path)
    verb = tree.get("verb")
    if not isinstance(verb, str) or verb not in RECIPES:
        raise ConfigError(f"{path}: verb must be one of {', '.join(RECIPES)}, not {_shown(verb)}")
    return validate(RECIPES[verb], tree, str(path))


def dump(recipe: BaseModel) -> str:
    """The resolved recipe as YAML; reading it back gives the same recipe."""
    return yaml.safe_dump(
        recipe.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True
    )


def read_tree(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, not yet validated."""
    try:
        with path.open("rb") as file:
            tree = parse(file.read(MAX_BYTES + 1).decode("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such recipe file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from None
    except SslPurifyError as error:
        raise type(error)(f"{path}: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of keys to values")
    return tree


def _override(tree: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {setting}: write it as key=value or block.key=value")
    try:
        value = parse(text)
    except SslPurifyError as error:
        raise type(error)(f"--set {setting}: {error}") from None
    for depth, part in enumerate(parts[:-1]):
        block: Any = tree.setdefault(part, {})
        if not isinstance(block, dict):
            raise ConfigError(f"--set {setting}: {'.'.join(parts[: depth + 1])} is not a block")
        tree = block
    tree[parts[-1]] = value


def validate(model: type[R], tree: Mapping[str, Any], source: str) -> R:
    """The recipe in a mapping.

    Raises:
        ConfigError: With every problem found; ``source`` says where the mapping came from.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        known = sorted(_key_paths(model.model_json_schema()))
        problems = [_problem(dict(found), known) for found in error.errors(include_url=False)]
    if len(problems) == 1:
        raise ConfigError(f"{source}: {problems[0]}")
    raise ConfigError(f"{source}: {len(problems)} problems" + "".join(f"\n  {p}" for p in problems))


def _problem(found: Mapping[str, Any], known: list[str]) -> str:
    key = printable(".".join(str(part) for part in found["loc"]))
    if found["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{key}: unknown key{_suggestion(key, known)}"
    if found["type"] == "missing":
        return f"{key}: missing"
    message = found["msg"].removeprefix("Value error, ")
    if not key:
        return message
    return f"{key}: {message[0].lower()}{message[1:]}, not {_shown(found['input'])}"


def _suggestion(key: str, known: list[str]) -> str:
    """The known key most like an unknown one: in the same block, else of the same name."""
    block, _, name = key.rpartition(".")
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == block}
    close = difflib.get_close_matches(name, siblings, n=1) or [
        sibling for sibling in siblings if name and sibling.startswith(name)
    ]
    elsewhere = [k for k in known if k.rpartition(".")[2] == name]
    best = [siblings[c] for c in close] or elsewhere
    if best:
        return f"; did you mean {best[0]}?"
    return f"; known here: {', '.join(sorted(siblings))}"


def _key_paths(schema: Mapping[str, Any]) -> Iterator[str]:
    """Every key path of a JSON schema, e.g. ``tsc.rounds``."""
    definitions = schema.get("$defs", {})

    def walk(node: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for option in (node, *node.get("anyOf", ()), *node.get("allOf", ())):
            if "$ref" in option:
                yield from walk(definitions[option["$ref"].rpartition("/")[2]], prefix)
            for name, child in option.get("properties", {}).items():
                yield prefix + name
                yield from walk(child, f"{prefix}{name}.")

    return walk(schema, "")


def _shown(value: Any) -> str:
    text = printable(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
