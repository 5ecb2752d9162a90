"""What encoders are measured on: labelled images, a trigger, and the probes that look at them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor

from sslpurify.attacks import Trigger, read_trigger
from sslpurify.compute import Compute
from sslpurify.data import ImageSet, LabelledImages, read_labelled, subset
from sslpurify.encoders import Network, Transform, embed
from sslpurify.errors import ConfigError
from sslpurify.probes import (
    Probe,
    ProbeSettings,
    Protocol,
    draw_shots,
    predict,
    zeroshot_predict,
)
from sslpurify.recipe import AttackRecipe, EvaluateRecipe
from sslpurify.run.classes import prompts_of
from sslpurify.types import Listener


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

    def few(self, shots: int) -> "Bench":
        """The same with ``shots`` images of every class in the bank.

        Raises:
            DataError: A class has fewer.
        """
        if self.bank is None:
            return self
        rows = draw_shots(self.bank.labels, shots, self.classes, self.seed)
        images = subset(self.bank.images, rows)
        return replace(self, bank=replace(self.bank, images=images, labels=self.bank.labels[rows]))

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
            processes=compute.processes,
            listener=listener,
            stage=f"{stage} · {what}",
        )

    test = bench.test.images
    return Features(
        None if bench.bank is None else seen(bench.bank.images, "bank"),
        seen(test, "test"),
        None if bench.trigger is None else seen(test, "triggered", bench.trigger),
    )
