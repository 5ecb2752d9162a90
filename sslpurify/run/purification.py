"""``purify``: a checkpoint and clean images in, a checkpoint without its backdoor out."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sslpurify.compute import choose
from sslpurify.encoders import Encoder
from sslpurify.journal import Journal
from sslpurify.purify import Purified, Trace
from sslpurify.purify import purify as take_out
from sslpurify.purify import resolved as settings_for
from sslpurify.recipe import PurifyRecipe
from sslpurify.report import stages_table
from sslpurify.run.answer import FOLLOWER, Answer
from sslpurify.run.clean import Clean, read_clean, text_of
from sslpurify.run.directory import RunDirectory, run_directory
from sslpurify.run.loading import (
    Weights,
    encoder_of,
    read_weights,
    resolved,
    tell_decisions,
    wanted_size,
)
from sslpurify.run.memory import Standing, read_state, write_state
from sslpurify.run.output import finished, inputs_of, room_for, save_page, save_run
from sslpurify.types import Listener

TRACES = "curves.safetensors"
"""What of its curves a finished run keeps, for `sslpurify evaluate --sweep`."""


def purify(recipe: PurifyRecipe, listener: Listener, *, resume: bool = False) -> Answer:
    """Purify the recipe's checkpoint and leave it, with the evidence, in the recipe's folder.

    Args:
        recipe: Nouns and numbers.
        listener: Told about every step.
        resume: Whether to go on with what an earlier process left in the folder.

    Raises:
        SslPurifyError: The subclass says whose fault it is; what can be gone on with is kept.
    """
    sources = [recipe.checkpoint, recipe.text_from, recipe.data]
    processes = choose(recipe.device).processes
    with run_directory(
        recipe.out, listener=listener, resume=resume, outside=sources, processes=processes
    ) as run:
        weights = read_weights(recipe.checkpoint, recipe)
        clean = read_clean(recipe, wanted_size(recipe, weights), run.listener)
        encoder = encoder_of(recipe, clean.images.size, weights)
        tell_decisions(recipe, encoder)
        recipe = settled(resolved(recipe, encoder), encoder, captions=clean.captions is not None)
        inputs = inputs_of(recipe, weights.checkpoint, clean)
        traces = 3 * recipe.tsc.rounds - 1  # two bends a round, and where later rounds began
        room = room_for(weights.state, weights.checkpoint, traces)
        memory = run.begin(recipe, inputs, room)
        if memory is None:
            return finished(run)
        _, data = purify_into(run, recipe, encoder, weights, clean, memory, memory.listen)
    if run.follows:
        return FOLLOWER
    table = stages_table(data["stages"])
    return Answer(data, f"{table}\n{data['output']}\nsha256 {data['sha256']}")


def settled(recipe: PurifyRecipe, encoder: Encoder, *, captions: bool) -> PurifyRecipe:
    """The recipe with the family's own settings, with or without captions, written in."""
    settings = settings_for(recipe.tsc, encoder.family, captions=captions)
    return recipe.model_copy(update={"tsc": settings})


def purify_into(
    run: RunDirectory,
    recipe: PurifyRecipe,
    encoder: Encoder,
    weights: Weights,
    clean: Clean,
    journal: Journal,
    listener: Listener,
) -> tuple[Purified, dict[str, Any]]:
    """Purify weights, and write everything a run leaves."""
    started = time.monotonic()
    compute = choose(recipe.device, recipe.tsc.precision)
    purified = take_out(
        encoder,
        weights.state,
        clean.images,
        recipe.tsc,
        text=text_of(recipe, encoder, weights, clean, compute, listener),
        seed=recipe.seed,
        compute=compute,
        journal=journal,
        listener=listener,
    )
    facts = {
        "seconds": round(time.monotonic() - started, 2),
        "stages": [stage.to_json() for stage in purified.stages],
    }
    if run.follows:
        return purified, {}
    made = replace(weights, state=purified.state)
    with run.results() as folder:
        write_traces(purified.traces, folder / TRACES)
        data = save_run(folder, recipe, made, clean.images, compute, facts)
        save_page(folder)
    return purified, data


def write_traces(traces: Sequence[Trace], path: Path) -> None:
    """Writes what is kept of a run's curves."""
    write_state(Standing({trace.name: trace.to_piece() for trace in traces}), path)


def read_traces(path: Path) -> tuple[Trace, ...]:
    """What `write_traces` wrote.

    Raises:
        CheckpointError: The file is torn, or is something else.
    """
    pieces = read_state(path).pieces
    return tuple(Trace.from_piece(str(name), piece) for name, piece in pieces.items())
