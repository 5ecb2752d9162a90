"""JSON from strangers: bounded, and no key that silently replaces another."""

import json
from pathlib import Path
from typing import Any, NoReturn

from sslpurify.errors import CheckpointError, UnsafeInputError

_MAX_DEPTH = 32
_MAX_BYTES = 4 * 1024**2


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; see `parse`.

    Raises:
        CheckpointError: There is no such file, or it is no JSON object.
        UnsafeInputError: It is larger than any configuration, or nested too deep.
    """
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > _MAX_BYTES:
        raise UnsafeInputError(f"{path}: larger than any configuration ({_MAX_BYTES:,} bytes)")
    return parse(data, str(path))


def parse(data: bytes, what: str) -> dict[str, Any]:
    """The object in a JSON text.

    Args:
        data: UTF-8, of a size that was checked before.
        what: Names it in messages, e.g. ``config.json``.

    Raises:
        CheckpointError: It is not JSON, is no object, or holds a key twice in one object.
        UnsafeInputError: It is nested deeper than 32 levels.
    """
    try:
        found = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError:
        raise UnsafeInputError(f"{what} is nested more than {_MAX_DEPTH} levels deep") from None
    except KeyError as error:
        # Readers disagree on which of the two counts, so what is checked may not be what runs.
        raise CheckpointError(f"{what} holds the key {error.args[0][:80]!r} twice") from None
    except ValueError as error:
        raise CheckpointError(f"{what} is not valid JSON ({str(error)[:160]!r})") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{what} is no JSON object, but a {type(found).__name__}")
    _require_shallow(found, what)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise KeyError(key)
        found[key] = value
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")


def _require_shallow(found: Any, what: str) -> None:
    level = [found]
    for _ in range(_MAX_DEPTH):
        level = [child for item in level for child in children(item)]
    if level:
        raise UnsafeInputError(f"{what} is nested more than {_MAX_DEPTH} levels deep")


def children(item: Any) -> list[Any]:
    """What an object or array of JSON holds; nothing for the rest."""
    return list(item.values()) if isinstance(item, dict) else item if isinstance(item, list) else []
