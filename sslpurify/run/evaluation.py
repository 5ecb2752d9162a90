"""``evaluate``: probes on one, two or three encoders, over the same images."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from sslpurify.compute import Compute, choose
from sslpurify.encoders import Network
from sslpurify.probes import (
    Measurement,
    Probe,
    Rate,
    compare,
    correct,
    fooled,
    near_chance,
    require_neighbours,
)
from sslpurify.recipe import EvaluateRecipe, dump
from sslpurify.report import (
    Changes,
    CheckpointName,
    ClassRates,
    Evaluation,
    EvaluationOrigin,
    Row,
    Which,
    classes_table,
    evaluation_table,
    sweep_table,
    versions,
)
from sslpurify.run.answer import Answer
from sslpurify.run.bench import Bench, Features, needed, see, set_up
from sslpurify.run.classes import class_embeddings
from sslpurify.run.directory import run_directory
from sslpurify.run.evidence import Glimpse, evidence, glimpse
from sslpurify.run.lineage import purification_of
from sslpurify.run.loading import (
    Weights,
    completed,
    encoder_of,
    read_weights,
    tell_decisions,
    wanted_size,
)
from sslpurify.run.output import PAGE, save_measured
from sslpurify.run.stopping import stoppable
from sslpurify.run.sweep import curves_of, save_sweep, swept
from sslpurify.types import Listener

log = logging.getLogger(__name__)


def evaluate(recipe: EvaluateRecipe, listener: Listener, *, per_class: bool = False) -> Answer:
    """Measure the recipe's checkpoints, each through every probe.

    Args:
        recipe: Nouns and numbers.
        listener: Told about every step.
        per_class: Whether to show every class's rates to people; programs are always told.

    Raises:
        SslPurifyError: The subclass says whose fault it is.
    """
    if recipe.out is None:
        return _evaluate(recipe, stoppable(listener), None, per_class=per_class)
    read = (recipe.checkpoint, recipe.text_from, recipe.before, recipe.reference)
    sources = [*read, recipe.train, recipe.test]
    with (
        run_directory(recipe.out, listener=listener, resume=False, outside=sources) as run,
        run.results() as folder,
    ):
        return _evaluate(recipe, run.listener, folder, per_class=per_class)


def _evaluate(
    recipe: EvaluateRecipe, listener: Listener, folder: Path | None, *, per_class: bool
) -> Answer:
    """The answer; its record, page and pictures are left in the folder, if there is one."""
    started, compute = time.monotonic(), choose(recipe.device)
    paths: dict[Which, Path | None] = {
        "before": recipe.before,
        "after": recipe.checkpoint,
        "reference": recipe.reference,
    }
    files: dict[Which, Weights] = {
        which: read_weights(path, recipe) for which, path in paths.items() if path
    }
    bench, images = _bench(recipe, wanted_size(recipe, files["after"]), listener)
    tell_decisions(recipe, encoder_of(recipe, bench.test.images.size, files["after"]))
    curves = curves_of(recipe.sweep, recipe.device, listener) if recipe.sweep else []
    features: dict[Which, Features] = {
        which: _features(recipe, which, weights, bench, compute, listener)
        for which, weights in files.items()
    }
    measured: dict[Which, Mapping[Probe, Measurement]] = {
        which: measure(its, bench, recipe.probes) for which, its in features.items()
    }

    def look(network: Network, name: str) -> Mapping[Probe, Measurement]:
        seen = see(network, bench, compute, name, listener)
        seen = replace(seen, classes=features["after"].classes)
        return measure(seen, bench, recipe.probes)

    sweep = [swept(path, profile, recipe.sweep_points, look) for path, profile in curves]
    names: dict[Which, CheckpointName] = {
        which: CheckpointName.of(weights.checkpoint) for which, weights in files.items()
    }
    evaluation = replace(
        evaluation_of(measured, bench, time.monotonic() - started),
        origin=EvaluationOrigin(
            checkpoints=names,
            images=images,
            trigger=bench.trigger and bench.trigger.digest(),
            seed=recipe.seed,
            device=str(compute.device),
            precision=compute.precision,
            recipe=dump(recipe),
            versions=versions(),
        ),
        sweep=tuple(sweep),
    )
    if recipe.sweep:
        save_sweep(recipe.sweep, evaluation)
    data, text = evaluation.to_json(), _text(evaluation, per_class=per_class)
    if folder is None:
        return Answer(data, text)
    glimpses: dict[Which, Glimpse] = {w: glimpse(its, bench) for w, its in features.items()}
    seen = evidence(glimpses, bench, folder)
    record = {**data, **purification_of(files["after"].checkpoint), **seen}
    save_measured(folder, record, dump(recipe))
    page = str(needed(recipe.out, "a folder") / PAGE)
    return Answer({**data, "report": page}, f"{text}\n{page}")


def _bench(
    recipe: EvaluateRecipe, size: int | None, listener: Listener
) -> tuple[Bench, dict[str, str]]:
    """What to measure on, and the hashes of the images that it was taken from."""
    bench = set_up(recipe, size, recipe.probes, listener)
    images = bench.digests()
    bench = bench.few(recipe.shots) if recipe.shots is not None else bench
    if bench.bank is not None and "knn" in recipe.probes:
        require_neighbours(recipe.knn.k, len(bench.bank.labels))  # before hours of embedding
    return bench, images


def _text(evaluation: Evaluation, *, per_class: bool) -> str:
    checkpoints = {} if evaluation.origin is None else evaluation.origin.checkpoints
    names = {which: f"{which} ({its.file})" for which, its in checkpoints.items()}
    tables = [evaluation_table(evaluation, names)]
    if per_class:
        tables.append(classes_table(evaluation))
    if evaluation.sweep:
        tables.append(sweep_table(evaluation.sweep))
    return "\n\n".join(tables)


def _features(
    recipe: EvaluateRecipe,
    which: Which,
    weights: Weights,
    bench: Bench,
    compute: Compute,
    listener: Listener,
) -> Features:
    encoder = encoder_of(recipe, bench.test.images.size, weights)
    network = encoder.load(completed(encoder, weights))
    features = see(network, bench, compute, which, listener)
    if bench.prompts is None:
        return features
    named = class_embeddings(recipe, encoder, weights, bench.prompts, compute)
    return replace(features, classes=named)


def evaluation_of(
    measured: Mapping[Which, Mapping[Probe, Measurement]], bench: Bench, seconds: float
) -> Evaluation:
    """The record of what was measured.

    Args:
        measured: Every encoder, in the order of the table, through every probe.
        bench: What it was measured on.
        seconds: Wall time of all of it.
    """
    rows = [row for which, its in measured.items() for row in rows_of(which, its, bench)]
    changes: list[Changes] = []
    if "before" in measured and "after" in measured:
        before, after = measured["before"], measured["after"]
        changes = [changes_of(probe, before[probe], after[probe]) for probe in after]
    return Evaluation(tuple(rows), bench.protocol, seconds, tuple(changes))


def changes_of(probe: str, before: Measurement, after: Measurement) -> Changes:
    """After less before through one probe, image by image."""
    fooled = None
    if before.fooled is not None and after.fooled is not None:
        fooled = compare(before.fooled.happened, after.fooled.happened)
    return Changes(probe, compare(before.correct.happened, after.correct.happened), fooled)


def rows_of(which: Which, measured: Mapping[Probe, Measurement], bench: Bench) -> list[Row]:
    """One encoder's rows of the table; warns where the clean accuracy is near chance."""
    for probe, measurement in measured.items():
        if near_chance(measurement.clean_accuracy, len(bench.classes)):
            _warn_near_chance(which, probe, measurement.clean_accuracy, len(bench.classes))
    return [
        Row(
            which,
            probe,
            measurement.clean_accuracy,
            measurement.attack_success_rate,
            by_class(measurement, bench.classes),
        )
        for probe, measurement in measured.items()
    ]


def by_class(measurement: Measurement, classes: Sequence[str]) -> tuple[ClassRates, ...]:
    """The rates of each class, in the order of the classes."""
    clean, count = measurement.correct.rates_by_class(len(classes)), len(classes)
    fooled = measurement.fooled.rates_by_class(count) if measurement.fooled else [None] * count
    return tuple(ClassRates(*rates) for rates in zip(classes, clean, fooled, strict=True))


def measure(features: Features, bench: Bench, probes: Sequence[Probe]) -> dict[Probe, Measurement]:
    """What each probe says of one encoder's features."""
    labels = bench.test.labels
    queries = [features.test, *([] if features.triggered is None else [features.triggered])]
    measured: dict[Probe, Measurement] = {}
    for probe in probes:
        predicted = bench.predict(probe, features, torch.cat(queries))
        clean, *triggered = predicted.split(len(labels))
        measured[probe] = Measurement(
            correct(clean, labels),
            fooled(triggered[0], labels, bench.target, bench.protocol) if triggered else None,
        )
    return measured


def _warn_near_chance(which: str, probe: str, accuracy: Rate, classes: int) -> None:
    log.warning(
        "clean accuracy of %r is %s by %s: hardly above guessing among %d classes. A checkpoint "
        "loaded wrongly (architecture, normalization, image size) looks exactly like a purified "
        "one; check it with `sslpurify inspect` before believing any attack success rate.",
        which, accuracy, probe, classes,
    )  # fmt: skip
