"""YAML from strangers: plain data only, bounded, and no key that silently replaces another."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from sslpurify.errors import ConfigError, UnsafeInputError

MAX_BYTES = 256 * 1024
_MAX_DEPTH = 16


def line(data: dict[str, Any]) -> str:
    """Plain data as one line of YAML, in braces."""
    return yaml.safe_dump(data, default_flow_style=True, sort_keys=False, width=2**20).strip()


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases, merge keys, duplicate keys and deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            raise UnsafeInputError(
                f"line {self.peek_event().start_mark.line + 1}: aliases (*name) are not read; "
                "write the value out"
            )
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise UnsafeInputError(f"nested deeper than {_MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise ConfigError(f"line {line}: the key {key!r} is not text; put it in quotes")
            if key in seen:
                raise ConfigError(
                    f"line {line}: the key {key!r} already stands in line {seen[key]}"
                )
            seen[key] = line
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-3 as text, which no one who writes a learning rate means.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse(text: str) -> Any:
    """The plain data in a YAML text: mappings with text keys, lists, text, numbers.

    Args:
        text: One YAML document, at most 256 KiB.

    Raises:
        ConfigError: The text is not YAML, or a key stands twice in one mapping.
        UnsafeInputError: The text is too large or too deep, holds an alias, or a tag that asks
            for anything but plain data.
    """
    if len(text) > MAX_BYTES:
        raise UnsafeInputError(f"longer than {MAX_BYTES // 1024} KiB")
    try:
        return _StrictLoader(text).get_single_data()
    except yaml.constructor.ConstructorError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UnsafeInputError(f"{line}{error.problem}; only plain data is read") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{line}not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"not valid YAML: {reason}") from None
