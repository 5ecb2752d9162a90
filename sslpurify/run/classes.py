"""What the classes of an evaluation are called, and where a text tower puts them."""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from sslpurify.compute import Compute
from sslpurify.data import (
    SIMPLE_TEMPLATES,
    class_prompts,
    names_of_folders,
    prompt_set,
    read_names,
)
from sslpurify.encoders import Encoder, embed_captions
from sslpurify.errors import DataError
from sslpurify.probes import class_embedding
from sslpurify.recipe import Measuring, StoredEncoder
from sslpurify.run.clean import names_file, templates_of
from sslpurify.run.loading import Weights, text_tower


def prompts_of(recipe: Measuring, folders: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The prompts of every class, in the order of the class folders.

    Raises:
        ConfigError: No such prompt set.
        DataError: Names and folders do not match.
    """
    source, usual = recipe.classnames, SIMPLE_TEMPLATES
    if source is None:
        names = tuple(folder.replace("_", " ") for folder in folders)
    elif names_file(source):
        names = read_names(Path(source))
        if len(names) != len(folders):
            raise DataError(f"{source} has {len(names)} names for {len(folders)} class folders")
    else:
        known = prompt_set(source)
        names, usual = names_of_folders(known, folders), known.templates
    return class_prompts(names, templates_of(recipe.prompt_templates, usual))


def class_embeddings(
    choice: StoredEncoder,
    encoder: Encoder,
    weights: Weights,
    prompts: tuple[tuple[str, ...], ...],
    compute: Compute,
) -> Float[Tensor, "c d"]:
    """The zero-shot classifier of a text tower: one embedding a class.

    Raises:
        ConfigError: There is no text tower.
    """
    tower = compute.place(text_tower(choice, encoder, weights))
    assert encoder.text is not None  # noqa: S101 - text_tower has made sure
    flat = [prompt for some in prompts for prompt in some]
    embedded = embed_captions(tower, encoder.text.tokenize, flat, device=compute.device)
    return class_embedding(embedded.view(len(prompts), -1, embedded.shape[1]))
