"""``evaluate``: probes on one, two or three encoders, over the same images."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from sslpurify.attacks import Trigger, read_trigger
from sslpurify.compute import Compute, choose
from sslpurify.data import ImageSet, LabelledImages, read_labelled
from sslpurify.encoders import Network, Transform, embed
from sslpurify.errors import ConfigError
from sslpurify.probes import (
    Measurement,
    Probe,
    ProbeSettings,
    Protocol,
    Rate,
    attack_success_rate,
    clean_accuracy,
    near_chance,
    predict,
    zeroshot_predict,
)
from sslpurify.recipe import AttackRecipe, EvaluateRecipe
from sslpurify.report import Evaluation, Row, Which, evaluation_table
from sslpurify.run.answer import Answer
from sslpurify.run.classes import class_embeddings, prompts_of
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


@dataclass(frozen=True)
class Bench:
    """What encoders are measured on.

    Args:
        bank: The probes' images; None: there is only zero-shot.
        test: The images to classify; same classes, same size.
        prompts: Of every class, for zero-shot; None: it is not asked for.
        trigger: Laid on the test images for the attack success rate; None: no such rate.
        target: Index of the trigger's class.
        protocol: Whether test images of the target class count.
        settings: Settings of the probes.
        seed: Of the probes that draw something.
    """

    bank: LabelledImages | None
    test: LabelledImages
    prompts: tuple[tuple[str, ...], ...] | None
    trigger: Trigger | None
    target: int
    protocol: Protocol
    settings: ProbeSettings
    seed: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.test.classes

    def digests(self) -> dict[str, str]:
        """Hashes of its images."""
        test = {"test": self.test.images.digest()}
        return test if self.bank is None else {**test, "train": self.bank.images.digest()}

    def predict(self, probe: Probe, features: "Features", queries: Tensor) -> Tensor:
        """The classes that a probe gives to queries, from what an encoder makes of the bench."""
        if probe == "zeroshot":
            return zeroshot_predict(needed(features.classes, "class embeddings"), queries)
        bank, labels = needed(features.bank, "a bank"), needed(self.bank, "a bank").labels
        return predict(probe, bank, labels, queries, len(self.classes), self.seed, self.settings)


@dataclass(frozen=True, eq=False)
class Features:
    """One encoder's embeddings of a bench.

    Args:
        bank: Of the probes' images; None where there are none.
        test: Of the test images.
        triggered: Of the same with the trigger; None where there is none.
        classes: Of the classes' prompts; None where zero-shot is not asked for.
    """

    bank: Float[Tensor, "n d"] | None
    test: Float[Tensor, "m d"]
    triggered: Float[Tensor, "m d"] | None
    classes: Float[Tensor, "c d"] | None = None


T = TypeVar("T")


def needed(value: T | None, what: str) -> T:
    """The value, which the recipe has made sure of."""
    if value is None:
        raise ValueError(f"this probe needs {what}")
    return value


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


def set_up(
    recipe: EvaluateRecipe | AttackRecipe,
    size: int | None,
    probes: Sequence[Probe],
    listener: Listener,
) -> Bench:
    """Read the images and the trigger that a recipe measures with.

    Args:
        recipe: Names them.
        size: Height and width of the images; None: their own.
        probes: What will be asked for.
        listener: Told about the reading.

    Raises:
        ConfigError: The target is none of the classes.
        DataError: Images or trigger cannot be used, or the two folders' classes differ.
    """
    bank: LabelledImages | None = None
    if recipe.train is not None:
        bank = read_labelled(
            recipe.train, size, limit_per_class=recipe.train_per_class, listener=listener
        )
        size = bank.images.size
    test = read_labelled(
        recipe.test,
        size,
        classes=None if bank is None else bank.classes,
        limit_per_class=recipe.test_per_class,
        listener=listener,
    )
    trigger = None
    if recipe.trigger is not None:
        trigger = read_trigger(recipe.trigger, test.images.size, recipe.trigger_index)
    return Bench(
        bank,
        test,
        prompts_of(recipe, test.classes) if "zeroshot" in probes else None,
        trigger,
        class_index(recipe.target, test.classes),
        recipe.protocol,
        recipe.probe_settings,
        recipe.seed,
    )


def class_index(name: str | None, classes: Sequence[str]) -> int:
    """The index of a class by its name; -1, which is no class, for None.

    Raises:
        ConfigError: There is no such class.
    """
    if name is None:
        return -1
    if name not in classes:
        raise ConfigError(f"--target {name}: no such class; there are: {', '.join(classes)}")
    return classes.index(name)


def see(
    network: Network, bench: Bench, compute: Compute, stage: str, listener: Listener
) -> Features:
    """Embed the images of a bench, each set once."""
    placed = compute.place(network)

    def seen(images: ImageSet, what: str, transform: Transform | None = None) -> Tensor:
        return embed(
            placed,
            images,
            transform=transform,
            device=compute.device,
            listener=listener,
            stage=f"{stage} · {what}",
        )

    test = bench.test.images
    return Features(
        None if bench.bank is None else seen(bench.bank.images, "bank"),
        seen(test, "test"),
        None if bench.trigger is None else seen(test, "triggered", bench.trigger),
    )


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
