"""``attack --show``: what the recipe's trigger does to its images, drawn and nothing else."""

from pathlib import Path

from sslpurify.attacks import read_trigger, trigger_name
from sslpurify.data import read_labelled
from sslpurify.encoders import create
from sslpurify.errors import ConfigError
from sslpurify.recipe import AttackRecipe
from sslpurify.report import contact_sheet, slug
from sslpurify.run.answer import Answer
from sslpurify.run.loading import read_weights, wanted_size
from sslpurify.types import Listener

MOST = 8
"""Images on a sheet, one of each class."""


def show_trigger(recipe: AttackRecipe, picture: Path | None, listener: Listener) -> Answer:
    """Draw some of the recipe's test images clean, with its trigger, and the difference.

    Args:
        recipe: Names trigger and images; its checkpoint need not be there yet.
        picture: The PNG to write; None: beside the recipe's folder, named after both.
        listener: Told about the reading.

    Raises:
        ConfigError: The picture is no ``.png``, exists already, or cannot be written.
        DataError: Images or trigger cannot be used.
    """
    name = f"{recipe.out.name}.{slug(trigger_name(recipe.trigger))}.png"
    path = recipe.out.with_name(name) if picture is None else picture
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--show {path}: the sheet is a PNG; name it .png")
    if path.exists():
        raise ConfigError(f"--show {path}: exists already; name another file")
    test = read_labelled(recipe.test, _size(recipe), limit_per_class=1, listener=listener)
    first = test.labels.unique()[:MOST]
    images = test.images.batch(first)
    trigger = read_trigger(recipe.trigger, test.images.size, recipe.trigger_index)
    place = recipe.method == "badclip"
    description = trigger.description + ("; BadCLIP optimizes what stands there" if place else "")
    sheet, factor = contact_sheet(
        images,
        trigger(images),
        captions=[test.classes[label] for label in first.tolist()],
        title=f"trigger {trigger.name}",
        description=description,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sheet)
    except OSError as error:
        raise ConfigError(f"--show {path}: cannot be written: {error.strerror}") from error
    data = {
        "output": str(path),
        "trigger": trigger.name,
        "description": description,
        "image_size": trigger.size,
        "difference_times": factor,
    }
    return Answer(data, f"{path}\ntrigger {trigger.name}: {description}")


def _size(recipe: AttackRecipe) -> int | None:
    """The images' size as a run of the recipe would have it."""
    if recipe.arch.partition("/")[0] == "hf":
        return wanted_size(recipe, read_weights(recipe.checkpoint, recipe))
    encoder = create(recipe.arch, image_size=recipe.image_size)
    usual = encoder.fixed_size or recipe.arch.endswith("-cifar")
    return encoder.image_size if usual else recipe.image_size
