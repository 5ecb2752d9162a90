"""``pretrain``: an encoder from scratch, in the format its users know."""

import time

from torch import Tensor

from sslpurify.compute import Compute, choose
from sslpurify.encoders import Encoder, create
from sslpurify.errors import ConfigError
from sslpurify.pretrain import train_clip, train_simclr
from sslpurify.recipe import PretrainRecipe
from sslpurify.run.answer import FOLLOWER, Answer
from sslpurify.run.clean import Clean, read_clean
from sslpurify.run.directory import run_directory
from sslpurify.run.loading import resolved, tell_decisions
from sslpurify.run.memory import Memory
from sslpurify.run.output import finished, inputs_of, room_for, save_new
from sslpurify.types import Listener, State


def pretrain(recipe: PretrainRecipe, listener: Listener, *, resume: bool = False) -> Answer:
    """Train the recipe's encoder and leave it in the recipe's folder.

    SimCLR encoders are written with lightly's names, CLIPs with open_clip's.

    Args:
        recipe: Nouns and numbers.
        listener: Told about every step.
        resume: Whether to go on with what an earlier process left in the folder.

    Raises:
        SslPurifyError: The subclass says whose fault it is; what can be gone on with is kept.
    """
    started, compute = time.monotonic(), choose(recipe.device)
    with run_directory(
        recipe.out,
        listener=listener,
        resume=resume,
        outside=[recipe.data],
        processes=compute.processes,
    ) as run:
        encoder = _encoder(recipe, recipe.image_size)
        sized = encoder.fixed_size or recipe.arch.endswith("-cifar")
        clean = read_clean(recipe, encoder.image_size if sized else recipe.image_size, run.listener)
        encoder = _encoder(recipe, clean.images.size)
        tell_decisions(recipe, encoder)
        recipe = resolved(recipe, encoder)
        blank = encoder.fresh(recipe.seed).state_dict()
        memory = run.begin(recipe, inputs_of(None, None, clean), room_for(blank, None))
        if memory is None:
            return finished(run)
        tensors = _trained(recipe, encoder, clean, compute, memory)
        if run.follows:
            return FOLLOWER
        facts = {"seconds": round(time.monotonic() - started, 2)}
        with run.results() as folder:
            data = save_new(folder, recipe, tensors, clean.images, compute, facts)
    return Answer(data, f"{data['output']}\nsha256 {data['sha256']}")


def _encoder(recipe: PretrainRecipe, size: int | None) -> Encoder:
    if recipe.arch.partition("/")[0] == "hf":
        raise ConfigError("pretrain makes SimCLR encoders and open_clip models, not hf")
    return create(
        recipe.arch,
        image_size=size,
        mean=recipe.image_mean,
        std=recipe.image_std,
        quick_gelu=recipe.quick_gelu,
        tokenizer=recipe.tokenizer,
    )


def _trained(
    recipe: PretrainRecipe, encoder: Encoder, clean: Clean, compute: Compute, memory: Memory
) -> dict[str, Tensor]:
    """The tensors of the file."""
    if recipe.method == "simclr":
        state = train_simclr(
            encoder,
            clean.images,
            recipe.simclr,
            seed=recipe.seed,
            compute=compute,
            journal=memory,
            listener=memory.listen,
        )
        return dict(state)
    if encoder.text is None:
        raise ConfigError(f"{recipe.arch} has no text tower: method clip needs one")
    image, text = train_clip(
        encoder,
        encoder.fresh(recipe.seed),
        encoder.text.fresh(recipe.seed),
        clean.pairs,
        recipe.clip,
        seed=recipe.seed,
        stage="CLIP training",
        compute=compute,
        journal=memory,
        listener=memory.listen,
    )
    return as_open_clip(encoder, image, text)


def as_open_clip(encoder: Encoder, image: State, text: State) -> dict[str, Tensor]:
    """Both towers under the names that open_clip gives them."""
    if encoder.text is None:
        raise ValueError(f"{encoder.name} has no text tower")
    visual = {
        name.replace("backbone.", "visual.", 1): tensor
        for name, tensor in image.items()
        if name.startswith("backbone.")
    }
    return {**{encoder.text.names(name)[0]: tensor for name, tensor in text.items()}, **visual}
