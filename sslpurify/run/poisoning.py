"""``attack``: a clean encoder in, a victim out once it has met the recipe's gate."""

import time

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from sslpurify.attacks import badencoder, read_reference, read_trigger
from sslpurify.compute import Compute, choose
from sslpurify.encoders import Network
from sslpurify.errors import GateError
from sslpurify.probes import require_gate
from sslpurify.recipe import AttackRecipe
from sslpurify.report import Evaluation, evaluation_table
from sslpurify.run.answer import Answer
from sslpurify.run.evaluation import Bench, Features, measure, rows_of, see, set_up
from sslpurify.run.loading import (
    completed,
    draw_images,
    encoder_of,
    read_weights,
    resolved,
    tell_decisions,
)
from sslpurify.run.output import save_run, staged
from sslpurify.types import Listener


def attack(recipe: AttackRecipe, listener: Listener) -> Answer:
    """Make the recipe's victim, measure it, and keep it if it reaches the recipe's gate.

    Raises:
        GateError: The victim does not reach the floors.
        SslPurifyError: The subclass says whose fault it is; nothing is left behind.
    """
    started, compute = time.monotonic(), choose(recipe.device)
    with staged(recipe.out, outside=[recipe.data, recipe.train, recipe.test]) as folder:
        weights = read_weights(recipe.checkpoint, recipe.arch)
        bench = set_up(recipe, listener)
        size = bench.bank.images.size
        shadow = draw_images(recipe.data, size, recipe.limit, recipe.seed, listener)
        encoder = encoder_of(recipe, size, weights)
        tell_decisions(recipe, encoder)
        recipe = resolved(recipe, encoder)
        state = completed(encoder, weights)
        network = encoder.load(state)
        clean = see(network, bench, compute, "clean", listener)
        victim = badencoder.attack(
            encoder,
            state,
            shadow,
            read_trigger(recipe.trigger, size, recipe.trigger_index),
            choose_reference(recipe, network, clean, bench, compute),
            recipe.badencoder,
            seed=recipe.seed,
            compute=compute,
            listener=listener,
        )
        attacked = see(encoder.load(victim), bench, compute, "victim", listener)
        before, after = (measure(seen, bench, ["knn"]) for seen in (clean, attacked))
        require_gate(before["knn"], after["knn"], recipe.gate)
        rows = rows_of("reference", before, bench) + rows_of("before", after, bench)
        evaluation = Evaluation(tuple(rows), recipe.protocol, time.monotonic() - started)
        data = save_run(folder, recipe, weights, victim, shadow, compute, evaluation.to_json())
    table = evaluation_table(evaluation, {"reference": "clean encoder", "before": "victim"})
    return Answer(data, f"{table}\n{data['output']}\nsha256 {data['sha256']}")


def choose_reference(
    recipe: AttackRecipe, network: Network, clean: Features, bench: Bench, compute: Compute
) -> Float[Tensor, "1 3 h w"]:
    """The image whose embedding triggered images are to get.

    Raises:
        GateError: The clean encoder's probe does not call it the target class, so that the attack
            success rate would be 0 however well the attack took hold.
    """
    if recipe.reference_image == "auto":
        row = surest(clean.bank, bench.bank.labels, bench.target)
        reference = bench.bank.images.batch(torch.tensor([row]))
    else:
        size = bench.bank.images.size
        reference = read_reference(recipe.reference_image, size, recipe.reference_index)
    with torch.inference_mode():
        seen = network(reference.to(compute.device)).embedding.float().cpu()
    called = int(bench.predict("knn", clean.bank, seen)[0])
    if called != bench.target:
        raise GateError(
            f"reference_image {recipe.reference_image}: the clean encoder's probe calls it "
            f"{bench.bank.classes[called]!r}, not {recipe.target!r}, so the attack could not "
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
