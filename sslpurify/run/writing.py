"""Small text files that appear whole or not at all."""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def save_text(text: str, path: Path) -> None:
    """Writes a file, replacing the one that was there.

    Raises:
        OSError: It cannot be written; the one that was there stays.
    """
    temporary = path.with_name(f".sslpurify-{secrets.token_hex(8)}.part")
    try:
        # JSON's own escape of a name that is no text
        with temporary.open("x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_json(data: Mapping[str, Any], path: Path) -> None:
    """Writes JSON for people and programs; as `save_text`."""
    save_text(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)
