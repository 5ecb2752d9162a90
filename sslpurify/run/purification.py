"""``purify``: a checkpoint and clean images in, a checkpoint without its backdoor out."""

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sslpurify.compute import choose
from sslpurify.encoders import Encoder
from sslpurify.purify import Purified, Stage
from sslpurify.purify import purify as take_out
from sslpurify.purify import resolved as settings_for
from sslpurify.recipe import PurifyRecipe
from sslpurify.report import save_profile, stages_table
from sslpurify.run.answer import Answer
from sslpurify.run.clean import Clean, read_clean, text_of
from sslpurify.run.loading import (
    Weights,
    encoder_of,
    read_weights,
    resolved,
    tell_decisions,
    wanted_size,
)
from sslpurify.run.output import save_run, staged
from sslpurify.types import Listener


def purify(recipe: PurifyRecipe, listener: Listener) -> Answer:
    """Purify the recipe's checkpoint and leave it, with the evidence, in the recipe's folder.

    Raises:
        SslPurifyError: The subclass says whose fault it is; nothing is left behind.
    """
    sources = [recipe.checkpoint, recipe.text_from, recipe.data]
    with staged(recipe.out, outside=sources) as folder:
        weights = read_weights(recipe.checkpoint, recipe)
        clean = read_clean(recipe, wanted_size(recipe, weights), listener)
        encoder = encoder_of(recipe, clean.images.size, weights)
        tell_decisions(recipe, encoder)
        _, data = purify_into(folder, resolved(recipe, encoder), encoder, weights, clean, listener)
    table = stages_table(data["stages"])
    return Answer(data, f"{table}\n{data['output']}\nsha256 {data['sha256']}")


def purify_into(
    folder: Path,
    recipe: PurifyRecipe,
    encoder: Encoder,
    weights: Weights,
    clean: Clean,
    listener: Listener,
) -> tuple[Purified, dict[str, Any]]:
    """Purify weights, and write everything a run leaves into a folder that exists."""
    started = time.monotonic()
    compute = choose(recipe.device, recipe.tsc.precision)
    settings = settings_for(recipe.tsc, encoder.family)
    recipe = recipe.model_copy(update={"tsc": settings})
    purified = take_out(
        encoder,
        weights.state,
        clean.images,
        settings,
        text=text_of(recipe, encoder, weights, clean, compute, listener),
        seed=recipe.seed,
        compute=compute,
        listener=listener,
    )
    facts = {
        "seconds": round(time.monotonic() - started, 2),
        "stages": [stage.to_json() for stage in purified.stages],
    }
    _save_profiles(purified.stages, folder)
    return purified, save_run(
        folder, recipe, replace(weights, state=purified.state), clean.images, compute, facts
    )


def _save_profiles(stages: Sequence[Stage], folder: Path) -> None:
    """One picture for every stage that ran along a curve, named after it."""
    for stage in stages:
        if stage.profile is not None:
            words = re.findall(r"[a-z0-9]+", stage.name.lower())
            save_profile(stage.profile, folder / f"profile-{'-'.join(words)}.png", title=stage.name)
