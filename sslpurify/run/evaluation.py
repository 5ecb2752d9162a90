"""``evaluate``: probes on one, two or three encoders, over the same images."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sslpurify.compute import choose
from sslpurify.probes import (
    Measurement,
    Probe,
    Rate,
    attack_success_rate,
    clean_accuracy,
    near_chance,
    require_neighbours,
)
from sslpurify.recipe import EvaluateRecipe
from sslpurify.report import Evaluation, Row, Which, evaluation_table
from sslpurify.run.answer import Answer
from sslpurify.run.bench import Bench, Features, see, set_up
from sslpurify.run.classes import class_embeddings
from sslpurify.run.loading import (
    Weights,
    completed,
    encoder_of,
    read_weights,
    tell_decisions,
    wanted_size,
)
from sslpurify.run.stopping import stoppable
from sslpurify.types import Listener

log = logging.getLogger(__name__)


def evaluate(recipe: EvaluateRecipe, listener: Listener) -> Answer:
    """Measure the recipe's checkpoints, each through every probe.

    Raises:
        SslPurifyError: The subclass says whose fault it is.
    """
    started = time.monotonic()
    compute, listener = choose(recipe.device), stoppable(listener)
    paths: dict[Which, Path | None] = {
        "before": recipe.before,
        "after": recipe.checkpoint,
        "reference": recipe.reference,
    }
    files: dict[Which, Weights] = {
        which: read_weights(path, recipe) for which, path in paths.items() if path
    }
    bench = set_up(recipe, wanted_size(recipe, files["after"]), recipe.probes, listener)
    bench = bench.few(recipe.shots) if recipe.shots is not None else bench
    if bench.bank is not None and "knn" in recipe.probes:
        require_neighbours(recipe.knn.k, len(bench.bank.labels))  # before hours of embedding
    size = bench.test.images.size
    tell_decisions(recipe, encoder_of(recipe, size, files["after"]))
    rows: list[Row] = []
    for which, weights in files.items():
        encoder = encoder_of(recipe, size, weights)
        network = encoder.load(completed(encoder, weights))
        features = see(network, bench, compute, which, listener)
        if bench.prompts is not None:
            named = class_embeddings(recipe, encoder, weights, bench.prompts, compute)
            features = replace(features, classes=named)
        rows += rows_of(which, measure(features, bench, recipe.probes), bench)
    evaluation = Evaluation(tuple(rows), recipe.protocol, time.monotonic() - started)
    names = {which: f"{which} ({path.name})" for which, path in paths.items() if path}
    return Answer(evaluation.to_json(), evaluation_table(evaluation, names))


def rows_of(which: Which, measured: Mapping[str, Measurement], bench: Bench) -> list[Row]:
    """One encoder's rows of the table; warns where the clean accuracy is near chance."""
    classes = len(bench.classes)
    for probe, measurement in measured.items():
        if near_chance(measurement.clean_accuracy, classes):
            _warn_near_chance(which, probe, measurement.clean_accuracy, classes)
    return [
        Row(which, probe, measurement.clean_accuracy, measurement.attack_success_rate)
        for probe, measurement in measured.items()
    ]


def measure(features: Features, bench: Bench, probes: Sequence[Probe]) -> dict[str, Measurement]:
    """What each probe says of one encoder's features."""
    labels = bench.test.labels
    queries = [features.test, *([] if features.triggered is None else [features.triggered])]
    measured: dict[str, Measurement] = {}
    for probe in probes:
        predicted = bench.predict(probe, features, torch.cat(queries))
        clean, *triggered = predicted.split(len(labels))
        measured[probe] = Measurement(
            clean_accuracy(clean, labels),
            attack_success_rate(triggered[0], labels, bench.target, bench.protocol)
            if triggered
            else None,
        )
    return measured


def _warn_near_chance(which: str, probe: str, accuracy: Rate, classes: int) -> None:
    log.warning(
        "clean accuracy of %r is %s by %s: hardly above guessing among %d classes. A checkpoint "
        "loaded wrongly (architecture, normalization, image size) looks exactly like a purified "
        "one; check it with `sslpurify inspect` before believing any attack success rate.",
        which, accuracy, probe, classes,
    )  # fmt: skip
