"""From a recipe's nouns to weights and an encoder, and the decisions this takes."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from sslpurify.checkpoint import Checkpoint, load_report, parse_json, read
from sslpurify.encoders import (
    Channels,
    Encoder,
    Layout,
    TextTower,
    asks_activation,
    candidates,
    create,
    extract,
    extract_text,
    locate,
)
from sslpurify.errors import CheckpointError, ConfigError
from sslpurify.recipe import EncoderChoice, StoredEncoder

C = TypeVar("C", bound=EncoderChoice)

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Weights:
    """A checkpoint, where its encoder lies in it, and that encoder's state.

    Args:
        checkpoint: The file, or folder.
        layout: Where the encoder and its text tower lie.
        state: The encoder's, under our names.
        text: Its text tower's; None where the file has none.
    """

    checkpoint: Checkpoint
    layout: Layout
    state: dict[str, Tensor]
    text: dict[str, Tensor] | None = None


def read_weights(path: Path, choice: StoredEncoder) -> Weights:
    """The encoder in a checkpoint.

    Raises:
        CheckpointError: The file is damaged, or holds another architecture.
        ConfigError: There is no such architecture, or the recipe must say more about it.
        UnsafeInputError: The file would run code.
    """
    require_activation(choice)
    checkpoint = read(path, allow_torchscript=choice.allow_torchscript)
    for warning in load_report(checkpoint).warnings:
        log.warning("%s: %s", path, warning)
    encoder = _create(choice, checkpoint)
    try:
        layout = locate(checkpoint.tensors, encoder, candidates(checkpoint.tensors))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    for prefix in layout.copies:
        log.warning("%s: a further encoder under %r stays as it is", path, prefix)
    for place in checkpoint.siblings:
        log.warning("%s: a further copy of the weights, %r, stays as it is", path, place)
    text = None if layout.text is None else extract_text(checkpoint, layout.text)
    return Weights(checkpoint, layout, extract(checkpoint, layout), text)


def require_activation(choice: EncoderChoice) -> None:
    """Asks for what no weight tells.

    Raises:
        ConfigError: The name stands for models with GELU and with QuickGELU.
    """
    if choice.quick_gelu is None and asks_activation(choice.arch):
        raise ConfigError(
            f"{choice.arch}: its weights work with GELU or with QuickGELU, and do not say which: "
            "--force-quick-gelu for OpenAI's own and what was trained from them, "
            "--no-force-quick-gelu for most others"
        )


def wanted_size(choice: EncoderChoice, weights: Weights) -> int | None:
    """The images' size as asked for, or as the weights need it; None: the images' own."""
    encoder = _create(choice, weights.checkpoint)
    usual = encoder.fixed_size or choice.arch.endswith("-cifar")
    return encoder.image_size if usual else choice.image_size


def encoder_of(choice: EncoderChoice, size: int, weights: Weights) -> Encoder:
    """The encoder that a recipe means, for images of this size, with the head of the weights."""
    given = choice.model_copy(update={"image_size": size})
    return _create(given, weights.checkpoint, head=weights.layout.head)


def text_tower(choice: StoredEncoder, encoder: Encoder, weights: Weights) -> TextTower:
    """The frozen text tower that captions and class names are embedded with.

    Raises:
        ConfigError: Neither the checkpoint nor ``text_from`` has one. A text tower with random
            weights would give an answer as well, so none is ever made up.
    """
    if encoder.text is None:
        raise ConfigError(f"{choice.arch} has no text tower: captions and zero-shot need one")
    state = weights.text
    if choice.text_from is not None:
        state = read_weights(choice.text_from, choice).text
    if state is None:
        source = choice.text_from or weights.checkpoint.path
        raise ConfigError(
            f"{source}: holds no whole text tower of {choice.arch}; name a checkpoint that does: "
            "--text-from"
        )
    return encoder.text.load(state)


def tell_decisions(choice: EncoderChoice, encoder: Encoder) -> None:
    """Log what the recipe left open and was decided."""
    if choice.image_size is None:
        size = encoder.image_size
        log.info("images enter at %d × %d pixels (--force-image-size)", size, size)
    if choice.image_mean is None:
        mean, std = (", ".join(f"{v:g}" for v in values) for values in (encoder.mean, encoder.std))
        log.info("normalized with mean %s, std %s (--image-mean, --image-std)", mean, std)
    if choice.quick_gelu is not None:
        log.info("activation: %s", "QuickGELU" if choice.quick_gelu else "GELU")


def resolved(choice: C, encoder: Encoder) -> C:
    """The recipe with the decisions that the encoder embodies written in."""
    decided = {
        "image_size": encoder.image_size,
        "image_mean": encoder.mean,
        "image_std": encoder.std,
    }
    return choice.model_copy(update=decided)


def completed(encoder: Encoder, weights: Weights) -> dict[str, Tensor]:
    """The weights' state, and where their file lacks a head, one that no embedding depends on."""
    return encoder.completed(weights.state)


def _create(choice: EncoderChoice, checkpoint: Checkpoint, **given: Any) -> Encoder:
    mean, std = choice.image_mean, choice.image_std
    if mean is None or std is None:
        mean, std = _normalization(checkpoint)
    folder = checkpoint.path if "tokenizer_config.json" in checkpoint.carried else None
    return create(
        choice.arch,
        image_size=choice.image_size,
        mean=mean,
        std=std,
        quick_gelu=choice.quick_gelu,
        config=checkpoint.config,
        tokenizer=choice.tokenizer or folder,
        **given,
    )


def _normalization(checkpoint: Checkpoint) -> tuple[Channels | None, Channels | None]:
    """What the folder of the weights says of it; None where it says nothing."""
    text = checkpoint.carried.get("preprocessor_config.json")
    said: Mapping[str, Any] = {}
    if text is not None:
        said = parse_json(text, "preprocessor_config.json")
    mean, std = (_channels(said.get(name)) for name in ("image_mean", "image_std"))
    return (mean, std) if mean is not None and std is not None else (None, None)


def _channels(values: Any) -> Channels | None:
    numbers = values if isinstance(values, list) else []
    if len(numbers) != 3 or not all(isinstance(v, (int, float)) and v > 0 for v in numbers):
        return None
    return (float(numbers[0]), float(numbers[1]), float(numbers[2]))
