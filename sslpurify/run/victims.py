"""The attacks of the recipes: from a clean encoder's weights to the victim's."""

from dataclasses import dataclass, replace

from torch import Tensor

from sslpurify.attacks import (
    Trigger,
    badencoder,
    first_of_class,
    members,
    optimize_patch,
    poison_images,
    poison_pairs,
    share_of_class,
)
from sslpurify.compute import Compute
from sslpurify.data import ImageSet, subset
from sslpurify.encoders import Encoder
from sslpurify.errors import ConfigError
from sslpurify.pretrain import train_simclr
from sslpurify.recipe import AttackRecipe
from sslpurify.run.bench import Bench, Features, needed
from sslpurify.run.classes import prompts_of
from sslpurify.run.clean import Clean
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

    @property
    def target_captions(self) -> tuple[str, ...]:
        """What is said of the target class."""
        prompts = self.bench.prompts or prompts_of(self.recipe, self.bench.classes)
        return prompts[self.bench.target]

    @property
    def towers(self) -> tuple[State, State]:
        """The weights of the image tower and of the text tower.

        Raises:
            ConfigError: The checkpoint has no text tower.
        """
        if self.weights.text is None:
            path, method = self.recipe.checkpoint, self.recipe.method
            raise ConfigError(f"{path}: has no text tower, which {method} trains as well")
        return self.weights.state, self.weights.text


def armed(scene: Scene) -> Scene:
    """The scene once it is known that its attack can be made, with the trigger that it makes.

    Raises:
        ConfigError: The recipe's method and its encoder, data or trigger do not go together.
        TrainingError: A loss is not finite.
    """
    recipe, bench = scene.recipe, scene.bench
    match recipe.method:
        case "ctrl" | "patch-poisoning":
            if scene.encoder.head is None:
                raise ConfigError(f"{recipe.arch}: method {recipe.method} trains SimCLR encoders")
            _rows(recipe, scene.clean.images)
        case "badclip":
            bank = needed(bench.bank, "a bank")
            trigger = optimize_patch(
                scene.encoder,
                scene.towers,
                scene.clean.pairs,
                scene.trigger,
                scene.target_captions,
                subset(bank.images, (bank.labels == bench.target).nonzero()[:, 0]),
                recipe.badclip,
                seed=recipe.seed,
                compute=scene.compute,
                journal=scene.memory,
                listener=scene.memory.listen,
            )
            return replace(scene, bench=replace(bench, trigger=trigger))
        case "pair-poisoning":
            _ = scene.towers, scene.clean.pairs
        case "badencoder":
            pass
    return scene


def victim(scene: Scene, before: Features) -> Weights:
    """The weights after the attack.

    Args:
        scene: What it is made with.
        before: The clean encoder's embeddings of the bench.

    Raises:
        GateError: The attack could not succeed.
        TrainingError: A loss is not finite.
    """
    match scene.recipe.method:
        case "badencoder":
            return _kept(scene.weights, _badencoder(scene, before))
        case "ctrl" | "patch-poisoning":
            return _kept(scene.weights, _poisoned_images(scene))
        case "pair-poisoning" | "badclip":
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
    image, text = poison_pairs(
        scene.encoder,
        scene.towers,
        scene.clean.pairs,
        scene.trigger,
        scene.target_captions,
        scene.recipe.pair_poisoning,
        seed=scene.recipe.seed,
        compute=scene.compute,
        journal=scene.memory,
        listener=scene.memory.listen,
    )
    return replace(scene.weights, state=image, text=text)
