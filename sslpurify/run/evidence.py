"""What an evaluation keeps for its report: a few embeddings, neighbours and pictures."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from sslpurify.attacks import Trigger
from sslpurify.data import ImageSet
from sslpurify.report import PICTURES, Which, embedding_map, nearest, png, spread
from sslpurify.run.bench import Bench, Features, needed

_FITTED = 2000
"""Test images that the map's directions come from, at most."""
_QUERIES = 4
"""Triggered images whose neighbours are shown."""


@dataclass(frozen=True, eq=False)
class Glimpse:
    """What is kept of one encoder's embeddings, however many there were.

    Args:
        test: Of `shown` test images.
        triggered: Of the same with the trigger; None: there is none.
        near: Cosines and rows of the images nearest to each of `queried`; None: no trigger.
    """

    test: Float[Tensor, "m d"]
    triggered: Float[Tensor, "m d"] | None
    near: tuple[Float64[Tensor, "q k"], Int64[Tensor, "q k"]] | None


def glimpse(features: Features, bench: Bench) -> Glimpse:
    """What a report shows of one encoder."""
    rows, queries = shown(bench), queried(bench)
    if features.triggered is None:
        return Glimpse(features.test[rows], None, None)
    looked_for = features.triggered[queries]
    near = (
        nearest(features.test, looked_for, except_for=queries)
        if features.bank is None
        else nearest(features.bank, looked_for)
    )
    return Glimpse(features.test[rows], features.triggered[rows], near)


def shown(bench: Bench) -> Int64[Tensor, " m"]:
    """The test images that the map is made of."""
    return spread(len(bench.test.labels), _FITTED)


def queried(bench: Bench) -> Int64[Tensor, " q"]:
    """The test images whose neighbours are shown: of other classes than the target."""
    others = (bench.test.labels != bench.target).nonzero()[:, 0]
    return others[spread(len(others), _QUERIES)]


def evidence(glimpses: Mapping[Which, Glimpse], bench: Bench, folder: Path) -> dict[str, Any]:
    """The record of what was glimpsed; its pictures are written to the folder.

    Args:
        glimpses: By encoder. The map leaves out the reference, whose directions mean other things.
        bench: What they were taken of.
        folder: Where to; exists.
    """
    (folder / PICTURES).mkdir(exist_ok=True)
    mapped = {which: (g.test, g.triggered) for which, g in glimpses.items() if which != "reference"}
    return {
        "classes": list(bench.classes),
        "trigger": None if bench.trigger is None else _trigger(bench, bench.trigger, folder),
        "map": embedding_map(mapped, bench.test.labels[shown(bench)]),
        "neighbours": None if bench.trigger is None else _neighbours(glimpses, bench, folder),
    }


def _trigger(bench: Bench, trigger: Trigger, folder: Path) -> dict[str, Any]:
    clean = bench.test.images.batch(queried(bench)[:1])
    marked, grey = trigger(clean), torch.full_like(clean, 0.5)
    change = (marked - clean).abs()
    images = {
        "trigger": ("on grey", trigger(grey)),
        "trigger-clean": ("a test image", clean),
        "trigger-laid-on": ("with trigger", marked),
        "trigger-change": ("the change, made bright", change / change.amax().clamp(min=1e-6)),
    }
    for name, (_, image) in images.items():
        (folder / PICTURES / f"{name}.png").write_bytes(png(image[0]))
    file = trigger.file
    return {
        "name": trigger.name,
        "description": trigger.description,
        "target": bench.classes[bench.target],
        "sha256": None if file is None else hashlib.sha256(file.read_bytes()).hexdigest(),
        "pictures": {f"{PICTURES}/{name}.png": said for name, (said, _) in images.items()},
    }


def _neighbours(glimpses: Mapping[Which, Glimpse], bench: Bench, folder: Path) -> dict[str, Any]:
    trigger = needed(bench.trigger, "a trigger")
    among = bench.test if bench.bank is None else bench.bank
    kind = "test" if bench.bank is None else "bank"

    def saved(name: str, images: ImageSet, row: int, *, marked: bool = False) -> str:
        image = images.batch(torch.tensor([row]))
        path = f"{PICTURES}/{name}-{row}.png"
        (folder / path).write_bytes(png((trigger(image) if marked else image)[0]))
        return path

    def found(near: tuple[Tensor, Tensor], number: int) -> list[dict[str, Any]]:
        return [
            {
                "row": row,
                "class": among.classes[int(among.labels[row])],
                "cosine": round(cosine, 4),
                "picture": saved(kind, among.images, row),
            }
            for cosine, row in zip(*(part[number].tolist() for part in near), strict=True)
        ]

    strips = [
        {
            "row": row,
            "class": bench.classes[int(bench.test.labels[row])],
            "clean": saved("test", bench.test.images, row),
            "triggered": saved("triggered", bench.test.images, row, marked=True),
            "nearest": {
                which: found(needed(glimpse.near, "a trigger"), number)
                for which, glimpse in glimpses.items()
            },
        }
        for number, row in enumerate(queried(bench).tolist())
    ]
    return {"among": kind, "strips": strips}
