"""The parts of a page that show images: the trigger, the map of embeddings, nearest neighbours."""

from collections.abc import Mapping

from sslpurify.report.page import Figure, Section, Strip, data_uri
from sslpurify.report.wording import ENCODERS, Record

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
        f"“{shown['name']}”: images that carry it are to be taken for “{shown['target']}”. "
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
        f"they hold {variance:.0%} of that variance, so that what lies together here may lie apart "
        "in all directions. All maps share their axes."
    )
    crosses = "Crosses carry the trigger: a backdoor that works gathers them in one place."
    paragraphs = (text, *([crosses] * attacked))
    return [Section("map", "Map of embeddings", paragraphs=paragraphs, figures=tuple(figures))]


def neighbours(record: Record, pictures: Pictures) -> list[Section]:
    """Which images an encoder holds to be most like a triggered one."""
    shown = record.get("neighbours")
    if shown is None:
        return []
    strips: list[Strip] = []
    for strip in shown["strips"]:
        name = f"test image {strip['row']}, {strip['class']}"
        queries = (
            picture(strip["clean"], pictures, name, strip["class"]),
            picture(strip["triggered"], pictures, f"{name}, with trigger", "with trigger"),
        )
        strips.append(Strip(f"“{strip['class']}” (test image {strip['row']})", queries))
        for which, found in strip["nearest"].items():
            figures = [
                picture(
                    near["picture"],
                    pictures,
                    f"neighbour {rank}, {near['class']}",
                    f"{near['class']} {near['cosine']:.2f}",
                )
                for rank, near in enumerate(found, 1)
            ]
            strips.append(Strip(f"{ENCODERS[which]}: nearest to it with trigger", tuple(figures)))
    of = {"bank": "the probes' bank", "test": "the other clean test images"}[shown["among"]]
    text = (
        f"A few test images with the trigger and the images nearest to them among {of}, with class "
        "and cosine. They were taken at even distances from the test images of other classes than "
        "the target, not chosen by what came out."
    )
    return [Section("neighbours", "Nearest neighbours", paragraphs=(text,), strips=tuple(strips))]
