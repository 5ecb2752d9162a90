"""A record with everything a report can show, its names chosen by somebody who means harm."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sslpurify.report import PICTURES, draw, embedding_map, pictures_of, png

SCRIPT = "<script>alert('x')</script>"
IMAGE = '"><img src=https://example.org/x onerror=alert(1)>'
BACKWARDS = "safe\u202egnp.exe"
CLASSES = [SCRIPT, IMAGE, BACKWARDS, "$\\frac{", "_hidden", "-->", "猫" * 40]
FILE = f"</style></title>{SCRIPT}.safetensors"


def rate(value: float, n: int = 900) -> dict[str, Any]:
    return {"value": value, "low": max(0.0, value - 0.02), "high": min(1.0, value + 0.02), "n": n}


def stages() -> list[dict[str, Any]]:
    points = [
        {"t": t / 4, "loss": 4.0 + t, "agreement": 1 - t / 10, "overlap": 1 - t / 8}
        for t in range(5)
    ]
    curve = {
        "name": "round 1 · stage 1",
        "kind": "curve",
        "seconds": 3.2,
        "loss": [4.0, 3.5],
        "t": 0.5,
        "profile": {"points": points, "chosen": 0.5},
        "displacement": {"conv1": 1.0, SCRIPT: 0.25, "heads": 0.0},
    }
    plain = {"name": "fine-tuning", "kind": "finetune", "profile": None, "displacement": {}}
    return [curve, {**curve, **plain, "t": None}]


def results() -> list[dict[str, Any]]:
    shares = {"before": (0.648, 0.917), "after": (0.625, 0.108), "reference": (0.648, 0.042)}
    return [
        {
            "which": which,
            "probe": probe,
            "clean_accuracy": rate(clean, 1000),
            "attack_success_rate": rate(fooled),
            "classes": [
                {
                    "name": name,
                    "clean_accuracy": rate(clean, 140),
                    "attack_success_rate": None if name == CLASSES[0] else rate(fooled, 140),
                }
                for name in CLASSES
            ],
        }
        for which, (clean, fooled) in shares.items()
        for probe in ("knn", "zeroshot")
    ]


def sweep() -> list[dict[str, Any]]:
    points = [
        {
            "t": t / 10,
            "results": [
                {
                    "probe": "knn",
                    "clean_accuracy": rate(0.6 - t / 100),
                    "attack_success_rate": rate(0.9 - t / 12) if t < 10 else None,
                }
            ],
        }
        for t in range(11)
    ]
    return [{"name": "round 1 · stage 1", "chosen": 0.5, "points": points, "profile": None}]


def neighbours() -> dict[str, Any]:
    near = {"row": 5, "class": IMAGE, "cosine": 0.987, "picture": f"{PICTURES}/bank-5.png"}
    strip = {
        "row": 3,
        "class": SCRIPT,
        "clean": f"{PICTURES}/test-3.png",
        "triggered": f"{PICTURES}/triggered-3.png",
        "nearest": {which: [near] * 5 for which in ("before", "after", "reference")},
    }
    return {"among": "bank", "strips": [strip]}


def seen() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(len(CLASSES)).repeat_interleave(10)
    clean, moved = torch.randn(2, len(labels), 16, generator=generator)
    return embedding_map({"before": (clean, moved), "after": (clean + 0.1, clean)}, labels)


def origin() -> dict[str, Any]:
    return {
        "parent": {"file": FILE, "sha256": "a" * 64},
        "data": {"images": 2500, "size": 32, "sha256": "b" * 64},
        "checkpoints": {"before": {"file": FILE, "sha256": "a" * 64}},
        "images": {"test": "c" * 64, "train": "d" * 64},
        "seed": 7,
        "device": "cpu",
        "precision": "fp32",
        "recipe": f"arch: x\ncheckpoint: {SCRIPT}\n",
        "versions": {"sslpurify": "0.1.0", "torch": "2"},
    }


def whole() -> dict[str, Any]:
    change = {"value": -0.809, "low": -0.83, "high": -0.78, "p": 1e-9}
    rise = {"value": -0.023, "low": -0.04, "high": -0.01, "p": 0.012}
    return {
        "output": f"out/{FILE}",
        "sha256": "e" * 64,
        "seconds": 12.3,
        "results": results(),
        "changes": [{"probe": "knn", "clean_accuracy": rise, "attack_success_rate": change}],
        "protocol": "exclude-target",
        "classes": CLASSES,
        "trigger": {
            "name": f"{SCRIPT}.npz",
            "description": "t and tm, index 0",
            "target": SCRIPT,
            "sha256": None,
            "pictures": {f"{PICTURES}/trigger.png": "on grey"},
        },
        "map": seen(),
        "neighbours": neighbours(),
        "stages": stages(),
        "sweep": sweep(),
        "purification": {"recipe": SCRIPT, "seconds": 9.0},
        "origin": origin(),
    }


def purification() -> dict[str, Any]:
    """What a run without labels and trigger knows."""
    kept = ("output", "sha256", "seconds", "stages", "origin")
    return {key: value for key, value in whole().items() if key in kept}


def pictured(record: Mapping[str, Any], folder: Path) -> dict[str, bytes]:
    """The pictures of such a record, as a run leaves them."""
    (folder / PICTURES).mkdir(parents=True)
    for name in ("trigger", "test-3", "triggered-3", "bank-5"):
        image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(len(name)))
        (folder / PICTURES / f"{name}.png").write_bytes(png(image))
    draw(json.loads(json.dumps(record)), folder)
    return pictures_of(folder)
