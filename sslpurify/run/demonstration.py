"""``demo``: the whole way once, on a poisoned encoder and images that come with the package."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sslpurify.attacks import read_trigger
from sslpurify.compute import choose
from sslpurify.data import ImageSet, LabelledImages, from_pixels
from sslpurify.encoders import Encoder
from sslpurify.journal import FORGETFUL
from sslpurify.probes import Measurement, Probe, ProbeSettings
from sslpurify.recipe import DemoRecipe, PurifyRecipe, dump, load
from sslpurify.report import Which, evaluation_table
from sslpurify.run.answer import FOLLOWER, Answer
from sslpurify.run.bench import Bench, class_index, see
from sslpurify.run.clean import Clean
from sslpurify.run.directory import run_directory, unused
from sslpurify.run.evaluation import evaluation_of, measure
from sslpurify.run.evidence import Glimpse, evidence, glimpse
from sslpurify.run.loading import completed, encoder_of, read_weights
from sslpurify.run.output import PAGE, save_measured
from sslpurify.run.purification import purify_into, settled
from sslpurify.types import Listener, State

EMBEDDED = Path(__file__).parents[1] / "demo_data"


@dataclass(frozen=True, eq=False)
class DemoImages:
    """The embedded images: clean ones without labels, and two labelled sets to measure on."""

    clean: ImageSet
    bank: LabelledImages
    test: LabelledImages


def demo(
    out: Path | None, *, seed: int, device: str, listener: Listener, embedded: Path = EMBEDDED
) -> Answer:
    """Evaluate the embedded victim, purify it, evaluate it again, and leave what a run leaves.

    Args:
        out: Folder for the results; None: ``runs/demo``, or the next free number after it.
        seed: Seed of every random draw.
        device: As on the command line.
        listener: Told about every step.
        embedded: The folder that comes with the package.
    """
    started, compute = time.monotonic(), choose(device)
    out = out or unused(Path("runs/demo"))
    flags = {"checkpoint": embedded / "victim.safetensors", "seed": seed, "device": device}
    recipe = load(DemoRecipe, embedded / "demo.yaml", flags=flags)
    images = read_demo_images(embedded / "images.npz", recipe.classes)
    victim = read_weights(recipe.checkpoint, recipe)
    clean = read_weights(embedded / "reference.safetensors", recipe)
    encoder = encoder_of(recipe, images.clean.size, victim)
    bench = Bench(
        images.bank,
        images.test,
        None,
        read_trigger(recipe.trigger, images.clean.size),
        class_index(recipe.target, recipe.classes),
        "exclude-target",
        ProbeSettings(knn=recipe.knn),
        seed,
    )
    glimpses: dict[Which, Glimpse] = {}

    def measured(which: Which, state: State, encoder: Encoder) -> dict[Probe, Measurement]:
        seen = see(encoder.load(state), bench, compute, which, run.listener)
        glimpses[which] = glimpse(seen, bench)
        return measure(seen, bench, ["knn"])

    with run_directory(out, listener=listener, resume=False, processes=compute.processes) as run:
        before = measured("before", completed(encoder, victim), encoder)
        wanted = purify_recipe(recipe, encoder, embedded / "images.npz", out)
        purified, data = purify_into(
            run, wanted, encoder, victim, Clean(images.clean, None), FORGETFUL, run.losses()
        )
        after = measured("after", {**completed(encoder, victim), **purified.state}, encoder)
        other = encoder_of(recipe, images.clean.size, clean)
        reference = measured("reference", completed(other, clean), other)
        if run.follows:
            return FOLLOWER
        evaluation = evaluation_of(
            {"before": before, "after": after, "reference": reference},
            bench,
            time.monotonic() - started,
        )
        with run.results() as folder:
            seen = evidence(glimpses, bench, folder)
            record = json.loads((run.out / "report.json").read_text("utf-8"))
            record["origin"]["images"] = bench.digests()
            save_measured(folder, {**record, **evaluation.to_json(), **seen}, dump(wanted))
    table = evaluation_table(
        evaluation,
        {"before": "poisoned", "after": "purified", "reference": "never poisoned"},
    )
    text = f"{table}\n{data['output']}\nsha256 {data['sha256']}\n{out / PAGE}"
    return Answer(evaluation.to_json(), text)


def purify_recipe(recipe: DemoRecipe, encoder: Encoder, images: Path, out: Path) -> PurifyRecipe:
    """The purification that the demonstration runs, as a recipe of its own."""
    wanted = PurifyRecipe(
        arch=recipe.arch,
        checkpoint=recipe.checkpoint,
        image_size=encoder.image_size,
        image_mean=encoder.mean,
        image_std=encoder.std,
        seed=recipe.seed,
        device=recipe.device,
        data=images,
        out=out,
        tsc=recipe.tsc,
    )
    return settled(wanted, encoder, captions=False)


def read_demo_images(path: Path, classes: tuple[str, ...]) -> DemoImages:
    """The embedded grey images, as RGB.

    Args:
        path: An npz with ``clean``, ``bank`` and ``test`` (n, size, size) uint8, and
            ``bank_labels`` and ``test_labels`` (n,), indices into the classes.
        classes: Names of the classes.
    """
    with np.load(path, allow_pickle=False) as arrays:

        def grey(name: str) -> ImageSet:
            return from_pixels(torch.from_numpy(arrays[name])[:, None].repeat(1, 3, 1, 1))

        def labelled(name: str) -> LabelledImages:
            labels = torch.from_numpy(arrays[f"{name}_labels"].astype(np.int64))
            return LabelledImages(grey(name), labels, classes)

        return DemoImages(grey("clean"), labelled("bank"), labelled("test"))
