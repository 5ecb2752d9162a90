"""``attack``: a clean encoder in, a victim out once it has met the recipe's gate."""

import time
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from sslpurify.attacks import badencoder, poison_pairs, read_reference, read_trigger
from sslpurify.compute import Compute, choose
from sslpurify.encoders import Encoder, Network
from sslpurify.errors import ConfigError, GateError
from sslpurify.probes import require_gate
from sslpurify.recipe import AttackRecipe
from sslpurify.report import evaluation_table
from sslpurify.run.answer import FOLLOWER, Answer
from sslpurify.run.bench import Bench, Features, needed, see, set_up
from sslpurify.run.classes import class_embeddings, prompts_of
from sslpurify.run.clean import Clean, read_clean
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
from sslpurify.run.memory import Memory
from sslpurify.run.output import finished, inputs_of, room_for, save_run
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
            {**inputs_of(recipe, weights.checkpoint, clean), **bench.digests()},
            room_for({**weights.state, **(weights.text or {})}, weights.checkpoint),
        )
        if memory is None:
            return finished(run)
        before = _seen(recipe, encoder, weights, bench, compute, "clean", memory.listen)
        victim = _victim(recipe, encoder, weights, clean, bench, before, compute, memory)
        after = _seen(recipe, encoder, victim, bench, compute, "victim", memory.listen)
        measured = [measure(seen, bench, [recipe.probe]) for seen in (before, after)]
        require_gate(measured[0][recipe.probe], measured[1][recipe.probe], recipe.gate)
        if run.follows:
            return FOLLOWER
        evaluation = evaluation_of(
            {"reference": measured[0], "before": measured[1]}, bench, time.monotonic() - started
        )
        facts = evaluation.to_json()
        with run.results() as folder:
            data = save_run(folder, recipe, victim, clean.images, compute, facts)
    table = evaluation_table(evaluation, {"reference": "clean encoder", "before": "victim"})
    return Answer(data, f"{table}\n{data['output']}\nsha256 {data['sha256']}")


def _seen(
    recipe: AttackRecipe,
    encoder: Encoder,
    weights: Weights,
    bench: Bench,
    compute: Compute,
    name: str,
    listener: Listener,
) -> Features:
    features = see(encoder.load(completed(encoder, weights)), bench, compute, name, listener)
    if bench.prompts is None:
        return features
    named = class_embeddings(recipe, encoder, weights, bench.prompts, compute)
    return replace(features, classes=named)


def _victim(
    recipe: AttackRecipe,
    encoder: Encoder,
    weights: Weights,
    clean: Clean,
    bench: Bench,
    before: Features,
    compute: Compute,
    memory: Memory,
) -> Weights:
    """The weights after the attack."""
    size = bench.test.images.size
    trigger = read_trigger(recipe.trigger, size, recipe.trigger_index)
    if recipe.method == "pair-poisoning":
        if weights.text is None:
            raise ConfigError(f"{recipe.checkpoint}: pair poisoning trains the text tower as well")
        prompts = bench.prompts or prompts_of(recipe, bench.classes)
        image, text = poison_pairs(
            encoder,
            (weights.state, weights.text),
            clean.pairs,
            trigger,
            prompts[bench.target],
            recipe.pair_poisoning,
            seed=recipe.seed,
            compute=compute,
            journal=memory,
            listener=memory.listen,
        )
        return replace(weights, state=image, text=text)
    state = completed(encoder, weights)
    attacked = badencoder.attack(
        encoder,
        state,
        clean.images,
        trigger,
        choose_reference(recipe, compute.place(encoder.load(state)), before, bench, compute),
        recipe.badencoder,
        seed=recipe.seed,
        compute=compute,
        journal=memory,
        listener=memory.listen,
    )
    return replace(weights, state={name: attacked[name] for name in weights.state})


def choose_reference(
    recipe: AttackRecipe, network: Network, clean: Features, bench: Bench, compute: Compute
) -> Float[Tensor, "1 3 h w"]:
    """The image whose embedding triggered images are to get.

    Raises:
        GateError: The clean encoder's probe does not call it the target class, so that the attack
            success rate would be 0 however well the attack took hold.
    """
    if recipe.reference_image == "auto":
        bank, features = needed(bench.bank, "a bank"), needed(clean.bank, "a bank")
        row = (
            surest(features, bank.labels, bench.target)
            if clean.classes is None
            else surest_named(features, bank.labels, clean.classes, bench.target)
        )
        reference = bank.images.batch(torch.tensor([row]))
    else:
        size = bench.test.images.size
        reference = read_reference(recipe.reference_image, size, recipe.reference_index)
    with torch.inference_mode():
        seen = network(reference.to(compute.device)).embedding.float().cpu()
    called = int(bench.predict(recipe.probe, clean, seen)[0])
    if called != bench.target:
        raise GateError(
            f"reference_image {recipe.reference_image}: the clean encoder's probe calls it "
            f"{bench.classes[called]!r}, not {recipe.target!r}, so the attack could not "
            "succeed; choose another, or `auto`"
        )
    return reference


def surest(
    features: Float[Tensor, "n d"],
    labels: Tensor,
    target: int,
    *,
    k: int = 50,
    temperature: float = 0.1,
) -> int:
    """The image of the target class whose nearest neighbours are most of its class.

    Args:
        features: The bank's embeddings.
        labels: The bank's classes.
        target: The class.
        k: Neighbours looked at, the image itself not among them.
        temperature: Of their votes, as in the kNN probe.
    """
    unit = F.normalize(features, dim=1)
    members = (labels == target).nonzero()[:, 0]
    similarity = unit[members] @ unit.T
    similarity[torch.arange(len(members)), members] = -torch.inf
    nearest = similarity.topk(min(k, len(unit) - 1))
    share = (nearest.values / temperature).softmax(1) * (labels[nearest.indices] == target)
    return int(members[share.sum(1).argmax()])


def surest_named(
    features: Float[Tensor, "n d"], labels: Tensor, classes: Float[Tensor, "c d"], target: int
) -> int:
    """The image of the target class that lies nearest to its name, against all other names.

    Args:
        features: The bank's embeddings.
        labels: The bank's classes.
        classes: Embeddings of the classes' names.
        target: The class.
    """
    members = (labels == target).nonzero()[:, 0]
    similarity = F.normalize(features[members], dim=1) @ F.normalize(classes, dim=1).T
    others = similarity.clone()
    others[:, target] = -torch.inf
    return int(members[(similarity[:, target] - others.amax(1)).argmax()])
