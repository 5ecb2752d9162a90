"""The images that a recipe trains on, and what a CLIP's text tower says of them."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from sslpurify.compute import Compute
from sslpurify.data import (
    SIMPLE_TEMPLATES,
    CaptionedImages,
    ImageSet,
    PairsKind,
    pairs_kind,
    prompt_set,
    read_images,
    read_names,
    read_pairs,
    read_templates,
    vocabulary,
)
from sslpurify.encoders import Captions, Encoder, Prompts, TextTower, embed_captions
from sslpurify.errors import ConfigError, DataError
from sslpurify.recipe import AttackRecipe, Pairs, PretrainRecipe, PurifyRecipe
from sslpurify.run.loading import Weights, text_tower
from sslpurify.types import Listener

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Clean:
    """Images, and their captions where the data has some."""

    images: ImageSet
    captions: tuple[tuple[str, ...], ...] | None

    @property
    def pairs(self) -> CaptionedImages:
        """The images with their captions.

        Raises:
            ConfigError: They have none.
        """
        if self.captions is None:
            raise ConfigError(
                "data has images without captions; give a table or tars of pairs, or take the "
                "folders' names as captions: dataset_type: class-folders"
            )
        return CaptionedImages(self.images, self.captions)


def read_clean(recipe: Pairs, size: int | None, listener: Listener) -> Clean:
    """What a recipe trains on.

    Args:
        recipe: Names it.
        size: Height and width of the images; None: their own.
        listener: Told about the reading.

    Raises:
        DataError: Images, table or tars cannot be used, or are fewer than the recipe's limit or
            one batch of it.
        UnsafeInputError: A path leaves its folder.
    """
    clean = _read(recipe, size, listener)
    for file in clean.images.unreadable:
        log.warning("left out: %s", file)
    if (batch := _batch(recipe)) is not None:
        require_batch(clean.images, recipe, *batch)
    return clean


def _read(recipe: Pairs, size: int | None, listener: Listener) -> Clean:
    kind = _kind(recipe)
    if kind == "images":
        images = read_images(
            recipe.data,
            size,
            limit=recipe.limit,
            seed=recipe.seed,
            max_bad_fraction=recipe.max_bad_fraction,
            listener=listener,
        )
        return Clean(images, None)
    pairs = read_pairs(
        recipe.data,
        size,
        kind=kind,
        img_key=recipe.csv_img_key,
        caption_key=recipe.csv_caption_key,
        separator=recipe.csv_separator,
        templates=templates_of(recipe.templates, SIMPLE_TEMPLATES),
        limit=recipe.limit,
        seed=recipe.seed,
        max_bad_fraction=recipe.max_bad_fraction,
        listener=listener,
    )
    return Clean(pairs.images, pairs.captions)


def templates_of(source: str | None, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """Prompt templates of a built-in set, or from a file.

    Raises:
        ConfigError: No such set.
        DataError: The file cannot be used.
    """
    if source is None:
        return otherwise
    if names_file(source):
        return read_templates(Path(source))
    return prompt_set(source).templates


def captions_of(
    encoder: Encoder, tower: TextTower, clean: Clean, compute: Compute, listener: Listener
) -> Captions:
    """The embeddings of the images' captions, each different one once."""
    assert encoder.text is not None and clean.captions is not None  # noqa: S101, PT018
    unique = list(dict.fromkeys(caption for some in clean.captions for caption in some))
    rows = {caption: row for row, caption in enumerate(unique)}
    embeddings = embed_captions(
        tower, encoder.text.tokenize, unique, device=compute.device, listener=listener
    )
    widest = max(map(len, clean.captions))
    choices = torch.tensor(
        [[rows[some[column % len(some)]] for column in range(widest)] for some in clean.captions]
    )
    return Captions(embeddings, choices, tower.scale, tower.bias)


def text_of(
    recipe: PurifyRecipe,
    encoder: Encoder,
    weights: Weights,
    clean: Clean,
    compute: Compute,
    listener: Listener,
) -> Captions | Prompts | None:
    """What holds a CLIP's image tower in the coordinates of its text tower.

    Captions where the data has some, prompts where a text tower is at hand, otherwise nothing. It
    is the first long work of a purification, so a set that is too small ends here.

    Raises:
        ConfigError: There are captions but no text tower.
        DataError: The images do not fill one batch.
    """
    require_batch(clean.images, recipe, recipe.tsc.batch_size, "tsc.batch_size")
    if clean.captions is not None:
        tower = compute.place(text_tower(recipe, encoder, weights))
        return captions_of(encoder, tower, clean, compute, listener)
    if encoder.text is None or (weights.text is None and recipe.text_from is None):
        if encoder.text is not None:
            log.warning(
                "no text tower: the image tower is purified by itself, and zero-shot "
                "classification may suffer; --text-from names a checkpoint that has one"
            )
        return None
    tower = compute.place(text_tower(recipe, encoder, weights))
    prompts = vocabulary() if recipe.prompts is None else read_names(recipe.prompts)
    log.info("no captions: the images are described by %d prompts", len(prompts))
    embeddings = embed_captions(
        tower, encoder.text.tokenize, prompts, device=compute.device, listener=listener
    )
    return Prompts(embeddings, tower.scale, tower.bias)


def require_batch(images: ImageSet, recipe: Pairs, needed: int, key: str) -> None:
    """Refuses a set that does not fill one batch, whose statistics would be those of nothing.

    Args:
        images: What could be read.
        recipe: Where from.
        needed: Images in a batch.
        key: The setting that says so.

    Raises:
        DataError: There are fewer images.
    """
    if len(images) >= needed:
        return
    bad = f" ({len(images.unreadable)} more cannot be read)" if images.unreadable else ""
    raises = f"raise limit ({recipe.limit})" if recipe.limit is not None else "give more images"
    raise DataError(
        f"{recipe.data}: {len(images)} clean images are too few{bad}: one batch, and BatchNorm "
        f"statistics with it, needs {needed}; {raises}, or lower {key}"
    )


def _batch(recipe: Pairs) -> tuple[int, str] | None:
    """How many images one step of a recipe needs, and the key that says so; None: not known yet."""
    match recipe:
        case PretrainRecipe(method="simclr"):
            return recipe.simclr.batch_size, "simclr.batch_size"
        case PretrainRecipe():
            return recipe.clip.batch_size, "clip.batch_size"
        case AttackRecipe(method="ctrl"):
            return recipe.ctrl.training.batch_size, "ctrl.training.batch_size"
        case AttackRecipe(method="patch-poisoning"):
            return recipe.patch_poisoning.training.batch_size, "patch_poisoning.training.batch_size"
        case AttackRecipe(method="pair-poisoning" | "badclip"):
            return recipe.pair_poisoning.training.batch_size, "pair_poisoning.training.batch_size"
        case _:
            return None


def _kind(recipe: Pairs) -> PairsKind | Literal["images"]:
    if recipe.dataset_type != "auto":
        return recipe.dataset_type
    if recipe.data.is_dir() and not any(recipe.data.glob("*.tar")):
        return "images"
    return pairs_kind(recipe.data)


def names_file(source: str) -> bool:
    """Whether a source of names or templates is a file, and not a built-in set."""
    return Path(source).suffix.lower() in (".txt", ".json")
