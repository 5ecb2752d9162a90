"""The parts of a page that show images: the trigger, the map of embeddings, nearest neighbours."""

from collections.abc import Mapping

from sslpurify.report.page.elements import Figure, Gallery, Section, Strip, data_uri
from sslpurify.report.page.wording import ENCODERS, Record, share

Pictures = Mapping[str, bytes]
"""PNG and SVG files by the name under which the record, or a stage, knows them."""


def picture(name: str, pictures: Pictures, alt: str, caption: str = "") -> Figure:
    """One of them as part of the page."""
    return Figure(data_uri(name, pictures[name]), alt, caption)


def trigger(record: Record, pictures: Pictures) -> list[Section]:
    """What the trigger looks like."""
    shown = record.get("trigger")
    if shown is None:
        return []
    figures = [
        picture(name, pictures, f"{caption} ({shown['name']})", caption)
        for name, caption in shown["pictures"].items()
    ]
    text = (
        f"“{shown['name']}” ({shown['description']}): images that carry it are to be taken for "
        f"“{shown['target']}”. "
        "sslpurify purify sees neither of the two."
    )
    return [Section("trigger", "Trigger", paragraphs=(text,), pixels=tuple(figures))]


def embedding_maps(record: Record, pictures: Pictures) -> list[Section]:
    """Where clean and triggered images lie before and after."""
    shown = record.get("map")
    if shown is None:
        return []
    first, *_ = shown["encoders"]
    attacked = record.get("trigger") is not None
    figures = [
        picture(
            f"map-{which}.svg",
            pictures,
            f"Scatter plot of {len(shown['labels'])} test images as the encoder sees them, "
            f"{ENCODERS[which]}" + ("; crosses carry the trigger" if attacked else ""),
        )
        for which in shown["encoders"]
    ]
    variance = sum(shown["explained"])
    text = (
        f"{len(shown['labels'])} test images at even distances in the set. The two directions are "
        f"those in which the clean embeddings of “{ENCODERS[first]}” vary most (PCA, unit length); "
        f"they hold {share(variance)} of that variance, so that what lies together here may lie "
        "apart in all directions. All maps share their axes."
    )
    crosses = "Crosses carry the trigger: a backdoor that works gathers them in one place."
    paragraphs = (text, *([crosses] * attacked))
    return [Section("map", "Map of embeddings", paragraphs=paragraphs, figures=tuple(figures))]


def neighbours(record: Record, pictures: Pictures) -> list[Section]:
    """Which images an encoder holds to be most like a triggered one."""
    shown = record.get("neighbours")
    if shown is None:
        return []
    galleries = tuple(
        Gallery(
            f"“{strip['class']}” (test image {strip['row']})",
            (_query(strip, pictures), *_found(strip, pictures)),
        )
        for strip in shown["strips"]
    )
    of = {"bank": "the probes' bank", "test": "the other clean test images"}[shown["among"]]
    text = (
        f"A few test images with the trigger and the images nearest to them among {of}, with class "
        "and cosine. They were taken at even distances from the test images of other classes than "
        "the target, not chosen by what came out."
    )
    return [Section("neighbours", "Nearest neighbours", paragraphs=(text,), galleries=galleries)]


def _query(strip: Record, pictures: Pictures) -> Strip:
    name = f"test image {strip['row']}, {strip['class']}"
    clean = picture(strip["clean"], pictures, name, "clean")
    return Strip(
        "the image",
        (clean, picture(strip["triggered"], pictures, f"{name}, with trigger", "with trigger")),
    )


def _found(strip: Record, pictures: Pictures) -> list[Strip]:
    return [
        Strip(
            f"nearest to it with trigger, {ENCODERS[which]}",
            tuple(
                picture(
                    near["picture"],
                    pictures,
                    f"neighbour {rank}, {near['class']}",
                    f"{near['class']} {near['cosine']:.2f}",
                )
                for rank, near in enumerate(found, 1)
            ),
        )
        for which, found in strip["nearest"].items()
    ]
