"""``inspect``: what is in a checkpoint, without running any of it."""

import shlex
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sslpurify.checkpoint import Checkpoint, load_report, read
from sslpurify.data.folder import printable
from sslpurify.encoders import Encoder, asks_activation, candidates, create, guess, locate
from sslpurify.errors import CheckpointError, ConfigError
from sslpurify.report import inspection_table
from sslpurify.run.answer import Answer


def inspect(path: Path, architecture: str | None, *, allow_torchscript: bool = False) -> Answer:
    """Name what a checkpoint holds, and what is wrong with it.

    Args:
        path: The file.
        architecture: What it is said to be; None: the best guess.
        allow_torchscript: Whether to take the weights out of a TorchScript archive.

    Raises:
        CheckpointError: There is no such file.
        ConfigError: There is no such architecture.
        UnsafeInputError: The file would run code.
    """
    if architecture not in (None, "hf"):
        create(architecture)
    try:
        checkpoint = read(path, allow_torchscript=allow_torchscript)
    except CheckpointError as error:
        if not path.exists():
            raise
        return _answer(format=None, problems=[str(error)])
    return _answer(**load_report(checkpoint).to_json(), **_fitting(checkpoint, architecture))


def _fitting(checkpoint: Checkpoint, asked: str | None) -> dict[str, Any]:
    """Which architecture fits: the one asked for, otherwise the best guess."""
    tensors = checkpoint.tensors
    known = _known(checkpoint, asked)
    found = guess(tensors, known.values())
    if not found:
        return {
            "ignored": list(tensors),
            "problems": ["no known architecture has any of its tensors"],
        }
    best = found[0]
    name, problems = asked or best.architecture, list[str]()
    try:
        layout = locate(tensors, known[name], known.values())
    except CheckpointError as error:
        name, layout, problems = best.architecture, best.layout, [str(error)]
    groups = known[name].spec.groups if layout else ()
    return {
        "architecture": name,
        "confidence": round(best.confidence, 4),
        "groups": [{"name": g.name, "kind": g.kind, "size": g.size} for g in groups],
        "ignored": list(layout.ignored) if layout else list(tensors),
        "problems": problems,
        "prefix": layout.prefix if layout else "",
        "next": _command(checkpoint, name) if layout and not problems else None,
    }


def _known(checkpoint: Checkpoint, asked: str | None) -> dict[str, Encoder]:
    """By name: the architecture asked for, what the folder says it is, and all that may fit."""
    known = {encoder.name: encoder for encoder in candidates(checkpoint.tensors)}
    if checkpoint.config is not None:
        with suppress(ConfigError):  # a model that is not described here
            known["hf"] = replace(create("hf", config=checkpoint.config), name="hf")
    if asked is not None and asked not in known:
        known[asked] = create(asked, config=checkpoint.config)
    return known


def _command(checkpoint: Checkpoint, architecture: str) -> str:
    """What to type next."""
    file = shlex.quote(printable(checkpoint.path))
    flags = [f"--arch {shlex.quote(architecture)}"]
    if asks_activation(architecture):
        flags.append("--force-quick-gelu|--no-force-quick-gelu")
    if checkpoint.container == "torchscript":
        flags.append("--allow-torchscript")
    return f"sslpurify purify {file} {' '.join(flags)} --data IMAGES --out purified"


def _answer(**facts: Any) -> Answer:
    blank = {
        "format": None,
        "architecture": None,
        "confidence": 0.0,
        "groups": [],
        "ignored": [],
        "problems": [],
        "files": 0,
        "wrapper": "",
        "prefix": "",
        "tensors": 0,
        "parameters": 0,
        "dtypes": {},
        "decisions": [],
        "warnings": [],
        "next": None,
    }
    data = {**blank, **facts}
    return Answer(data, inspection_table(data))
