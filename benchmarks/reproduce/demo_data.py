"""Rebuilds what ``sslpurify demo`` carries: an encoder, its poisoned twin and the images.

    apt-get install dataset-fashion-mnist        # Fashion-MNIST, MIT licence, by Zalando SE
    python benchmarks/reproduce/demo_data.py /usr/share/datasets/fashion-mnist

Takes Fashion-MNIST's four idx files (plain or gzipped), pre-trains a small SimCLR encoder, poisons
it by ``recipes/demo/badencoder_simclr_resnet18-w8-cifar_fashion-mnist.yaml`` and packs both with
unlabeled clean images, a labelled bank and a test set. No image is in two of the sets.
"""

import gzip
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
import yaml
from PIL import Image
from safetensors.torch import save_file

from sslpurify.compute import choose
from sslpurify.data import ViewSettings, from_pixels
from sslpurify.encoders import create
from sslpurify.pretrain import SimclrSettings, train_simclr
from sslpurify.report.progress import progress

RECIPE = Path("recipes/demo/badencoder_simclr_resnet18-w8-cifar_fashion-mnist.yaml")
ARCHITECTURE, SIZE = "simclr/resnet18-w8-cifar", 28
CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat")
CLASSES += ("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
SETTINGS = SimclrSettings(epochs=10, learning_rate=2e-3, views=ViewSettings(min_scale=0.3))
# Rows of the 60,000 training images, in a seeded order.
PRETRAINING, SHADOW = slice(0, 20_000), slice(20_000, 30_000)
BANK, CLEAN = slice(30_000, 33_000), slice(33_000, 35_500)
TEST = slice(0, 3_000)


def main(
    source: Annotated[Path, typer.Argument(help="Folder with the idx files.")],
    work: Annotated[Path, typer.Option(help="Scratch folder.")] = Path("runs/demo-data"),
    out: Annotated[Path, typer.Option(help="Where the package keeps it.")] = Path(
        "sslpurify/demo_data"
    ),
) -> None:
    """Rebuild the demonstration's data from Fashion-MNIST."""
    images, labels = idx(source, "train-images-idx3-ubyte"), idx(source, "train-labels-idx1-ubyte")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).numpy()
    images, labels = images[order], labels[order]
    test, test_labels = idx(source, "t10k-images-idx3-ubyte"), idx(source, "t10k-labels-idx1-ubyte")
    work.mkdir(parents=True, exist_ok=True)
    train_encoder(images[PRETRAINING], work / "encoder.safetensors")
    write_pictures(images[SHADOW], None, work / "shadow")
    write_pictures(images[BANK], labels[BANK], work / "bank")
    write_pictures(test[TEST], test_labels[TEST], work / "test")
    shutil.rmtree(work / "victim", ignore_errors=True)
    subprocess.run([sys.executable, "-m", "sslpurify", "attack", str(RECIPE)], check=True)
    victim = work / yaml.safe_load(RECIPE.read_text("utf-8"))["out"].split("/")[-1]
    shutil.copy(next(victim.glob("*.safetensors")), out / "victim.safetensors")
    shutil.copy(work / "encoder.safetensors", out / "reference.safetensors")
    np.savez_compressed(
        out / "images.npz",
        clean=images[CLEAN],
        bank=images[BANK],
        bank_labels=labels[BANK],
        test=test[TEST],
        test_labels=test_labels[TEST],
    )


def idx(folder: Path, name: str) -> np.ndarray:
    """An idx file as an array of bytes."""
    plain, packed = folder / name, folder / f"{name}.gz"
    data = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    axes = data[3]
    shape = [int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis]) for axis in range(axes)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def train_encoder(images: np.ndarray, path: Path) -> None:
    """Pre-trains an encoder and writes it, projection head included."""
    encoder = create(ARCHITECTURE, image_size=SIZE)
    pixels = torch.from_numpy(images.copy())[:, None].repeat(1, 3, 1, 1)
    with progress(sys.stderr) as listener:
        state = train_simclr(
            encoder, from_pixels(pixels), SETTINGS, seed=0, compute=choose(), listener=listener
        )
    save_file(state, path)


def write_pictures(images: np.ndarray, labels: np.ndarray | None, folder: Path) -> None:
    """Writes PNG files, in a folder per class where there are labels."""
    for number, image in enumerate(images):
        place = folder if labels is None else folder / CLASSES[labels[number]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:05}.png")


if __name__ == "__main__":
    typer.run(main)
