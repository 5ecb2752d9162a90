"""A stranger's model configuration must not make us build a network larger than any."""

from collections.abc import Iterator, Mapping
from typing import Any

from sslpurify.errors import UnsafeInputError

_MOST = {"layers": 256, "num_hidden_layers": 256, "depth": 256}
_MOST_OTHERWISE = 1_000_000


def require_modest(name: str, config: Mapping[str, Any]) -> None:
    """Refuses a configuration with absurd numbers, before anything is built from it.

    Raises:
        UnsafeInputError: Naming the number.
    """
    for key, value in _numbers(config):
        limit = _MOST.get(key.rpartition(".")[2], _MOST_OTHERWISE)
        if value > limit:
            raise UnsafeInputError(
                f"{name}: {key[:80]} is {value:,}; no encoder has more than {limit:,}"
            )


def _numbers(node: Any, place: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _numbers(value, f"{place}.{key}".lstrip("."))
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _numbers(value, place)
    elif isinstance(node, (int, float)) and not isinstance(node, bool):
        yield place, node
