"""What a run leaves: the checkpoint, its origin beside it, the report and the configuration."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslpurify.checkpoint import Checkpoint, load_report, new, read, write
from sslpurify.compute import Compute
from sslpurify.data import ImageSet
from sslpurify.encoders import restore
from sslpurify.recipe import AttackRecipe, PretrainRecipe, PurifyRecipe, Run, StoredEncoder, dump
from sslpurify.report import draw, pictures_of, provenance, to_html
from sslpurify.run.answer import Answer
from sslpurify.run.clean import Clean
from sslpurify.run.directory import RunDirectory
from sslpurify.run.loading import Weights
from sslpurify.run.writing import save_json, save_text
from sslpurify.types import State

PAGE = "report.html"


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
        folder: Where to; its files will become those of the recipe's ``out``.
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
    recipe: Run,
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
    save_json({"file": name, "sha256": sha256, **origin}, folder / f"{stem}.json")
    save_json({**report, **left_out, "origin": origin}, folder / "report.json")
    save_text(dump(recipe), folder / "config.yaml")
    return report


def save_measured(folder: Path, record: Mapping[str, Any], recipe: str) -> None:
    """Write what an evaluation leaves: its record, the page made of it, and the recipe's text."""
    save_text(recipe, folder / "config.yaml")
    save_json(record, folder / "report.json")
    save_page(folder)


def save_page(folder: Path) -> None:
    """Write what people look at beside ``report.json``: ``report.html``, and its figures as files.

    Args:
        folder: Holds the record and the pictures that it names.
    """
    record = json.loads((folder / "report.json").read_text("utf-8"))
    draw(record, folder)
    save_text(to_html(record, pictures_of(folder)), folder / PAGE)


def inputs_of(
    recipe: StoredEncoder | None, parent: Checkpoint | None, clean: Clean
) -> dict[str, Any]:
    """Hashes of what a run is given: another outcome may come of any other.

    Args:
        recipe: Names the checkpoint of a text tower, if there is one; None: nothing is read.
        parent: The checkpoint it starts from; None: random weights.
        clean: What it trains on.
    """
    text = None
    if recipe is not None and recipe.text_from is not None:
        text = read(recipe.text_from, allow_torchscript=recipe.allow_torchscript)
    said = json.dumps(clean.captions).encode()
    return {
        "checkpoint": parent and parent.sha256,
        "text_from": text and text.sha256,
        "images": clean.images.digest(),
        "captions": None if clean.captions is None else hashlib.sha256(said).hexdigest(),
    }


def finished(run: RunDirectory) -> Answer:
    """The answer of a run that an earlier process finished."""
    report = run.report or {}
    data = {key: value for key, value in report.items() if key not in ("unreadable", "origin")}
    text = f"{run.out} holds the finished run\n{data['output']}\nsha256 {data['sha256']}"
    return Answer(data, text)


def room_for(tensors: State, parent: Checkpoint | None, traces: int = 0) -> int:
    """Bytes that a run writes at most, before what it no longer needs is taken away.

    A state holds the tensors of a finished and of a running stage, the latter with two averages of
    Adam's beside them, and all traces so far; two states are kept while a third is written.

    Args:
        tensors: What is trained.
        parent: The checkpoint that they come from.
        traces: Copies of them that stay beside the result, at most.
    """
    size = sum(tensor.nbytes for tensor in tensors.values())
    whole = size if parent is None else sum(t.nbytes for t in parent.tensors.values())
    return (3 * (5 + traces) + traces) * size + 2 * whole
