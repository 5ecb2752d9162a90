"""The attacks of the recipes: from a clean encoder's weights to the victim's."""

from dataclasses import dataclass, replace

from torch import Tensor

from sslpurify.attacks import (
    Trigger,
    badencoder,
    first_of_class,
    members,
    poison_images,
    poison_pairs,
    share_of_class,
)
from sslpurify.compute import Compute
from sslpurify.data import ImageSet
from sslpurify.encoders import Encoder
from sslpurify.errors import ConfigError
from sslpurify.pretrain import train_simclr
from sslpurify.recipe import AttackRecipe
from sslpurify.run.classes import prompts_of
from sslpurify.run.clean import Clean
from sslpurify.run.evaluation import Bench, Features, needed
from sslpurify.run.loading import Weights, completed
from sslpurify.run.memory import Memory
from sslpurify.run.references import choose_reference
from sslpurify.types import State


@dataclass(frozen=True, eq=False)
class Scene:
    """What an attack is made with.

    Args:
        recipe: Says which, and how.
        encoder: What the weights belong to.
        weights: Of the clean encoder.
        clean: What is trained on, before it is poisoned.
        bench: What is measured on, with trigger and target.
        compute: Device and precision.
        memory: Of the run.
    """

    recipe: AttackRecipe
    encoder: Encoder
    weights: Weights
    clean: Clean
    bench: Bench
    compute: Compute
    memory: Memory

    @property
    def trigger(self) -> Trigger:
        """The trigger, which every attack has."""
        return needed(self.bench.trigger, "a trigger")


def victim(scene: Scene, before: Features) -> Weights:
    """The weights after the attack.

    Args:
        scene: What it is made with.
        before: The clean encoder's embeddings of the bench.

    Raises:
        ConfigError: The recipe's method and its encoder or data do not go together.
        GateError: The attack could not succeed.
        TrainingError: A loss is not finite.
    """
    match scene.recipe.method:
        case "badencoder":
            return _kept(scene.weights, _badencoder(scene, before))
        case "ctrl" | "patch-poisoning":
            return _kept(scene.weights, _poisoned_images(scene))
        case "pair-poisoning":
            return _poisoned_pairs(scene)


def _kept(weights: Weights, state: State) -> Weights:
    """Of a new state what the checkpoint has place for."""
    return replace(weights, state={name: state[name] for name in weights.state})


def _badencoder(scene: Scene, before: Features) -> State:
    state = completed(scene.encoder, scene.weights)
    network = scene.compute.place(scene.encoder.load(state))
    return badencoder.attack(
        scene.encoder,
        state,
        scene.clean.images,
        scene.trigger,
        choose_reference(scene.recipe, network, before, scene.bench, scene.compute),
        scene.recipe.badencoder,
        seed=scene.recipe.seed,
        compute=scene.compute,
        journal=scene.memory,
        listener=scene.memory.listen,
    )


def _poisoned_images(scene: Scene) -> State:
    recipe, images = scene.recipe, scene.clean.images
    if scene.encoder.head is None:
        raise ConfigError(f"{recipe.arch}: method {recipe.method} trains SimCLR encoders only")
    chosen = recipe.ctrl if recipe.method == "ctrl" else recipe.patch_poisoning
    return train_simclr(
        scene.encoder,
        poison_images(images, _rows(recipe, images), scene.trigger),
        chosen.training,
        start=None if chosen.from_scratch else completed(scene.encoder, scene.weights),
        seed=recipe.seed,
        compute=scene.compute,
        journal=scene.memory,
        listener=scene.memory.listen,
    )


def _rows(recipe: AttackRecipe, images: ImageSet) -> Tensor:
    """Which images are poisoned."""
    inside = members(images, recipe.data, recipe.target)
    if recipe.method == "ctrl":
        return first_of_class(inside, len(images), recipe.ctrl.ratio)
    return share_of_class(inside, recipe.patch_poisoning.share, recipe.seed)


def _poisoned_pairs(scene: Scene) -> Weights:
    recipe, weights = scene.recipe, scene.weights
    if weights.text is None:
        raise ConfigError(f"{recipe.checkpoint}: {recipe.method} trains the text tower as well")
    prompts = scene.bench.prompts or prompts_of(recipe, scene.bench.classes)
    image, text = poison_pairs(
        scene.encoder,
        (weights.state, weights.text),
        scene.clean.pairs,
        scene.trigger,
        prompts[scene.bench.target],
        recipe.pair_poisoning,
        seed=recipe.seed,
        compute=scene.compute,
        journal=scene.memory,
        listener=scene.memory.listen,
    )
    return replace(weights, state=image, text=text)
