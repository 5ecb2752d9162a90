"""Every kind of run that trains, at the smallest size; what must survive any interruption."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sslpurify.recipe import AttackRecipe, PretrainRecipe, PurifyRecipe, Run
from sslpurify.recipe.reading import validate
from sslpurify.run import attack, pretrain, purify
from sslpurify.types import Listener
from tests import pico, pico_clip

TSC = {**pico.QUICK, "steps": 4, "head_steps": 2, "final_steps": 3}
TRAINING = {"epochs": 2, "batch_size": 4, "warmup_steps": 1, "learning_rate": 1e-3}
GATE = {"min_attack_success_rate": 0, "max_accuracy_drop": 1}
_VERBS: dict[str, tuple[type[Run], Callable[..., Any]]] = {
    "purify": (PurifyRecipe, purify),
    "attack": (AttackRecipe, attack),
    "pretrain": (PretrainRecipe, pretrain),
}

Workload = dict[str, Any]
"""A recipe without its ``out``, as plain data."""


def workloads(folder: Path) -> dict[str, Workload]:
    """Recipes by name, with the files that they read below ``folder``."""
    simclr = {"arch": pico.ARCH, "image_size": pico.SIZE, "seed": 3}
    simclr |= {"data": str(pico.write_images(folder / "clean", 18))}
    encoder = {"checkpoint": str(pico.write_checkpoint(folder / "encoder.safetensors"))}
    arch, model = pico_clip.write(folder, "rn")
    pairs = str(pico.write_classes(folder / "pairs", 6, size=pico_clip.SIZE))
    clip = {"arch": arch, "data": pairs, "dataset_type": "class-folders", "seed": 3}
    attacked = {"verb": "attack", "trigger": "white-square", "target": "red", "gate": GATE}
    train = str(pico.write_classes(folder / "train", 6))
    probing = {"train": train, "test": str(pico.write_classes(folder / "test", 3, seed=1))}
    probing |= {"knn": {"k": 5}}
    poisoning = {**simclr, **encoder, **attacked, **probing, "data": train}
    return {
        "purify SimCLR": {**simclr, **encoder, "verb": "purify", "tsc": TSC},
        "purify CLIP": {
            **clip,
            "verb": "purify",
            "checkpoint": str(model),
            "tsc": {**TSC, "kept": 0, "micro_batch": 4},
        },
        "BadEncoder": {
            **simclr,
            **encoder,
            **attacked,
            **probing,
            "badencoder": {"epochs": 2, "batch_size": 8, "optimizer": "adam"},
        },
        "CTRL": {
            **poisoning,
            "method": "ctrl",
            "ctrl": {"ratio": 0.2, "training": {"epochs": 3, "batch_size": 6}},
        },
        "patch poisoning": {
            **poisoning,
            "method": "patch-poisoning",
            "patch_poisoning": {"from_scratch": True, "training": {"epochs": 3, "batch_size": 6}},
        },
        "pair poisoning": {
            **clip,
            **attacked,
            "checkpoint": str(model),
            "method": "pair-poisoning",
            "test": pairs,
            "probe": "zeroshot",
            "pair_poisoning": {"rate": 0.25, "training": TRAINING},
        },
        "BadCLIP": {
            **clip,
            **attacked,
            "checkpoint": str(model),
            "method": "badclip",
            "train": pairs,
            "test": pairs,
            "probe": "zeroshot",
            "badclip": {"steps": 5, "batch_size": 4, "learning_rate": 0.05},
            "pair_poisoning": {"rate": 0.25, "training": TRAINING},
        },
        "pretrain SimCLR": {
            **simclr,
            "verb": "pretrain",
            "method": "simclr",
            "simclr": {"epochs": 3, "batch_size": 6},
        },
        "pretrain CLIP": {**clip, "verb": "pretrain", "method": "clip", "clip": TRAINING},
    }


def run(workload: Workload, out: Path, listener: Listener, *, resume: bool = False) -> Any:
    """Run a workload into a folder."""
    model, verb = _VERBS[workload["verb"]]
    recipe = validate(model, {**workload, "out": str(out)}, "test")
    return verb(recipe, listener, resume=resume)


def results(out: Path) -> dict[str, bytes]:
    """The bytes of what a run leaves, apart from what tells times."""
    return {
        path.name: path.read_bytes()
        for path in out.iterdir()
        if path.suffix in (".safetensors", ".jsonl")
    }
