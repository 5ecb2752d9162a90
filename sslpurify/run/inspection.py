"""``inspect``: what is in a checkpoint, without running any of it."""

from pathlib import Path
from typing import Any

from sslpurify.checkpoint import Checkpoint, read
from sslpurify.encoders import backbone_shapes, create, guess, locate
from sslpurify.errors import CheckpointError
from sslpurify.report import inspection_table
from sslpurify.run.answer import Answer
from sslpurify.run.loading import known


def inspect(path: Path, architecture: str | None) -> Answer:
    """Name what a checkpoint holds, and what is wrong with it.

    Args:
        path: The file.
        architecture: What it is said to be; None: the best guess.

    Raises:
        CheckpointError: There is no such file.
        ConfigError: There is no such architecture.
        UnsafeInputError: The file would run code.
    """
    if architecture is not None:
        backbone_shapes(architecture)
    try:
        checkpoint = read(path)
    except CheckpointError as error:
        if not path.is_file():
            raise
        return _answer(format=None, problems=[str(error)])
    return _answer(format=checkpoint.container, **_fitting(checkpoint, architecture))


def _fitting(checkpoint: Checkpoint, asked: str | None) -> dict[str, Any]:
    """Which architecture fits: the one asked for, otherwise the best guess."""
    tensors, architectures = checkpoint.tensors, known(checkpoint.tensors)
    candidates = guess(tensors, architectures)
    if not candidates:
        return {
            "ignored": list(tensors),
            "problems": ["no known architecture has any of its tensors"],
        }
    best = candidates[0]
    name, problems = asked or best.architecture, list[str]()
    try:
        layout = locate(tensors, name, backbone_shapes(name), architectures)
    except CheckpointError as error:
        name, layout, problems = best.architecture, best.layout, [str(error)]
    groups = create(name).spec.groups if layout else ()
    return {
        "architecture": name,
        "confidence": round(best.confidence, 4),
        "groups": [{"name": g.name, "kind": g.kind, "size": g.size} for g in groups],
        "ignored": list(layout.ignored) if layout else list(tensors),
        "problems": problems,
    }


def _answer(**facts: Any) -> Answer:
    blank = {"format": None, "architecture": None, "confidence": 0.0, "groups": [], "ignored": []}
    data = {**blank, "problems": [], **facts}
    return Answer(data, inspection_table(data))
