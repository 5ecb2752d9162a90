"""The folder of a run: it appears whole, when the run has succeeded, or not at all."""

import errno
import json
import shutil
import tempfile
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sslpurify.checkpoint import Checkpoint, load_report, new, write
from sslpurify.compute import Compute
from sslpurify.data import ImageSet
from sslpurify.encoders import restore
from sslpurify.errors import ConfigError, TrainingError
from sslpurify.recipe import AttackRecipe, PretrainRecipe, PurifyRecipe, dump
from sslpurify.report import provenance
from sslpurify.run.loading import Weights
from sslpurify.types import State

_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}


@contextmanager
def staged(out: Path, *, outside: Collection[Path | None] = ()) -> Generator[Path]:
    """A temporary folder that becomes ``out`` when the block ends well and vanishes otherwise.

    Args:
        out: The folder to be; it must not exist, or be empty.
        outside: What is read, none of which may contain ``out``.

    Raises:
        ConfigError: ``out`` holds another run or lies inside what is read.
        TrainingError: The disk is full or ``out`` cannot be written to.
    """
    _require_free(out, outside)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=_existing(out.parent)))
        try:
            yield folder
            folder.chmod(0o755)  # mkdtemp's is closed to everyone else
            out.parent.mkdir(parents=True, exist_ok=True)
            folder.replace(out)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        raise TrainingError(f"cannot write to {out}: {error.strerror}; nothing was kept") from error


def save_run(
    folder: Path,
    recipe: PurifyRecipe | AttackRecipe,
    weights: Weights,
    images: ImageSet,
    compute: Compute,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write what a run leaves: the checkpoint, its origin beside it, report and configuration.

    The checkpoint has its parent's container, keys and dtypes.

    Args:
        folder: Where to; it will become the recipe's ``out``.
        recipe: The resolved recipe.
        weights: The parent's checkpoint and the new states.
        images: What they were made with.
        compute: Where they were made.
        facts: For the report, beside where the checkpoint lies and its hash.

    Returns:
        The report without the origin.
    """
    word = "purified" if isinstance(recipe, PurifyRecipe) else "victim"
    parent = weights.checkpoint
    made = restore(parent, weights.layout, weights.state, weights.text)
    name = f"{recipe.checkpoint.stem}.{word}{recipe.checkpoint.suffix}"
    origin = provenance(parent, images, compute, dump(recipe), recipe.seed)
    origin["load_report"] = load_report(parent).to_json()
    return _save(folder, recipe, made, name, images, origin, facts)


def save_new(
    folder: Path,
    recipe: PretrainRecipe,
    tensors: State,
    images: ImageSet,
    compute: Compute,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """As `save_run`, for weights without a parent, as ``encoder.safetensors``."""
    origin = provenance(None, images, compute, dump(recipe), recipe.seed)
    return _save(folder, recipe, new(tensors), "encoder.safetensors", images, origin, facts)


def _save(
    folder: Path,
    recipe: PurifyRecipe | AttackRecipe | PretrainRecipe,
    made: Checkpoint,
    name: str,
    images: ImageSet,
    origin: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    sha256 = write(made, folder / name)
    report = {"output": str(recipe.out / name), "sha256": sha256, **facts}
    left_out = {"unreadable": [str(file) for file in images.unreadable]}
    stem = name.removesuffix(Path(name).suffix) if (folder / name).is_file() else name
    _save_json({"file": name, "sha256": sha256, **origin}, folder / f"{stem}.json")
    _save_json({**report, **left_out, "origin": origin}, folder / "report.json")
    (folder / "config.yaml").write_text(dump(recipe), "utf-8")
    return report


def unused(out: Path) -> Path:
    """``out``, or the first of ``out-2``, ``out-3``, ... that does not exist."""
    number = 1
    while (free := out if number == 1 else out.with_name(f"{out.name}-{number}")).exists():
        number += 1
    return free


def _save_json(data: Mapping[str, Any], path: Path) -> None:
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_text(
        text, "utf-8", "backslashreplace"
    )  # JSON's own escape of a name that is no text


def _require_free(out: Path, outside: Collection[Path | None]) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a new or empty folder")
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"--out {out} is not empty; name a new or empty folder")
    for source in outside:
        if source is not None and out.resolve().is_relative_to(source.resolve()):
            raise ConfigError(f"--out {out} lies inside {source}, which is only read; name another")


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)
