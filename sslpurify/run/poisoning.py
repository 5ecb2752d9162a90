"""``attack``: a clean encoder in, a victim out once it has met the recipe's gate."""

import time
from dataclasses import replace

from sslpurify.attacks import save_picture
from sslpurify.compute import choose
from sslpurify.probes import require_gate
from sslpurify.recipe import AttackRecipe
from sslpurify.report import evaluation_table
from sslpurify.run.answer import FOLLOWER, Answer
from sslpurify.run.bench import Features, needed, see, set_up
from sslpurify.run.classes import class_embeddings
from sslpurify.run.clean import read_clean
from sslpurify.run.directory import run_directory
from sslpurify.run.evaluation import evaluation_of, measure
from sslpurify.run.loading import (
    Weights,
    completed,
    encoder_of,
    read_weights,
    resolved,
    tell_decisions,
    wanted_size,
)
from sslpurify.run.output import finished, inputs_of, room_for, save_run
from sslpurify.run.victims import Scene, armed, victim
from sslpurify.types import Listener


def attack(recipe: AttackRecipe, listener: Listener, *, resume: bool = False) -> Answer:
    """Make the recipe's victim, measure it, and keep it if it reaches the recipe's gate.

    Args:
        recipe: Nouns and numbers.
        listener: Told about every step.
        resume: Whether to go on with what an earlier process left in the folder.

    Raises:
        GateError: The victim does not reach the floors; nothing is left behind.
        SslPurifyError: The subclass says whose fault it is; what can be gone on with is kept.
    """
    started, compute = time.monotonic(), choose(recipe.device)
    sources = [recipe.checkpoint, recipe.text_from, recipe.data, recipe.train, recipe.test]
    with run_directory(
        recipe.out, listener=listener, resume=resume, outside=sources, processes=compute.processes
    ) as run:
        weights = read_weights(recipe.checkpoint, recipe)
        bench = set_up(recipe, wanted_size(recipe, weights), [recipe.probe], run.listener)
        clean = read_clean(recipe, bench.test.images.size, run.listener)
        encoder = encoder_of(recipe, bench.test.images.size, weights)
        tell_decisions(recipe, encoder)
        recipe = resolved(recipe, encoder)
        memory = run.begin(
            recipe,
            {
                **inputs_of(recipe, weights.checkpoint, clean),
                **bench.digests(),
                "trigger": needed(bench.trigger, "a trigger").digest(),
            },
            room_for({**weights.state, **(weights.text or {})}, weights.checkpoint),
        )
        if memory is None:
            return finished(run)
        scene = armed(Scene(recipe, encoder, weights, clean, bench, compute, memory))
        before = _seen(scene, weights, "clean")
        attacked = victim(scene, before)
        after = _seen(scene, attacked, "victim")
        measured = [measure(seen, scene.bench, [recipe.probe]) for seen in (before, after)]
        require_gate(measured[0][recipe.probe], measured[1][recipe.probe], recipe.gate)
        if run.follows:
            return FOLLOWER
        evaluation = evaluation_of(
            {"reference": measured[0], "before": measured[1]}, bench, time.monotonic() - started
        )
        facts = evaluation.to_json()
        with run.results() as folder:
            if recipe.method == "badclip":
                save_picture(scene.trigger, folder / "trigger.png")
                facts["trigger"] = str(recipe.out / "trigger.png")
            data = save_run(folder, recipe, attacked, clean.images, compute, facts)
    table = evaluation_table(evaluation, {"reference": "clean encoder", "before": "victim"})
    return Answer(data, f"{table}\n{data['output']}\nsha256 {data['sha256']}")


def _seen(scene: Scene, weights: Weights, name: str) -> Features:
    encoder, bench, compute = scene.encoder, scene.bench, scene.compute
    network = encoder.load(completed(encoder, weights))
    features = see(network, bench, compute, name, scene.memory.listen)
    if bench.prompts is None:
        return features
    named = class_embeddings(scene.recipe, encoder, weights, bench.prompts, compute)
    return replace(features, classes=named)
