"""Models and pairs in the forms in which they are handed around, through the command line."""

import csv
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.push_to_hf_hub import save_for_hf
from open_clip.tokenizer import HFTokenizer
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from sslpurify.checkpoint import read
from sslpurify.statedict import identical
from tests import pico, pico_clip
from tests.data.tars import write_tar
from tests.run.test_clip import BATCH, Cli, answered, ours, purify

PLAIN_VIEWS = {
    **dict.fromkeys(("min_scale", "max_scale", "min_ratio", "max_ratio"), 1),
    **dict.fromkeys(("flip_probability", "jitter_probability", "grey_probability"), 0),
}
"""Every view is its image."""
WORDS = ("blue", "green", "red")


def write_pairs(folder: Path) -> list[tuple[Path, str]]:
    """Images, each with a caption of words that the pico tokenizer knows."""
    images = sorted(pico.write_images(folder, 16, size=pico_clip.SIZE).iterdir())
    return [(path, f"a photo of {WORDS[number % 3]} .") for number, path in enumerate(images)]


def write_table(path: Path, pairs: list[tuple[Path, str]]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["filepath", "title"])
        table.writerows([image.relative_to(path.parent), caption] for image, caption in pairs)
    return path


def write_shards(folder: Path, pairs: list[tuple[Path, str]]) -> Path:
    """Two webdataset tars."""
    folder.mkdir()
    for shard, part in enumerate((pairs[:9], pairs[9:])):
        members = {}
        for image, caption in part:
            members[image.name] = image.read_bytes()
            members[f"{image.stem}.txt"] = caption.encode()
        write_tar(folder / f"{shard:05}.tar", members)
    return folder


def write_siglip(folder: Path, bias: float) -> tuple[str, Path]:
    """A pico SigLIP whose loss lies at this bias."""
    folder.mkdir()
    config = pico_clip.write_config(folder / "pico-siglip.json", "siglip")
    tensors = pico_clip.state("siglip")
    tensors["logit_bias"].fill_(bias)
    tensors["logit_scale"].fill_(1.5)
    save_file(tensors, folder / "siglip.safetensors")
    return f"open_clip/{config}", folder / "siglip.safetensors"


def sigmoid_loss(arch: str, path: Path, pairs: list[tuple[Path, str]], tokenizer: Path) -> float:
    """Zhai et al. 2023 (arXiv 2303.15343), algorithm 1, by open_clip's model and reading."""
    config = Path(arch.removeprefix("open_clip/"))
    open_clip.add_model_config(config)
    model, _, preprocess = open_clip.create_model_and_transforms(
        config.stem, pretrained=str(path), image_mean=(0.5,) * 3, image_std=(0.5,) * 3
    )
    images = torch.stack([preprocess(Image.open(image)) for image, _ in pairs])
    tokens = HFTokenizer(str(tokenizer), context_length=16)([caption for _, caption in pairs])
    with torch.no_grad():
        x, y = (F.normalize(e) for e in (model.encode_image(images), model.encode_text(tokens)))
        logits = model.logit_scale.exp() * x @ y.T + model.logit_bias
    labels = 2 * torch.eye(len(pairs)) - 1
    return float(-F.logsigmoid(labels * logits).sum() / len(pairs))


def test_a_siglip_is_held_by_its_own_loss(cli: Cli, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "images")
    words = pico_clip.write_hf(tmp_path / "words", "siglip")
    table = write_table(tmp_path / "pairs.csv", pairs)
    views = {f"views.{name}": value for name, value in PLAIN_VIEWS.items()}
    arch, path = write_siglip(tmp_path / "model", bias=-1.0)
    flags = ["--data", table, "--tokenizer", words, *pico.set_flags(tsc=views)]
    answer = answered(purify(cli, arch, path, *flags))
    assert [stage["kind"] for stage in answer["stages"]] == ["curve", "curve"]
    suspect = answer["stages"][0]["profile"]["points"][0]
    assert suspect["t"] == 0
    assert suspect["loss"] == pytest.approx(sigmoid_loss(arch, path, pairs, words), rel=1e-4)

    before, after = read(path), read(Path(answer["output"]))
    assert list(after.tensors) == list(before.tensors)
    changed = {n for n, t in after.tensors.items() if not identical(t, before.tensors[n])}
    assert changed
    assert all(name.startswith("visual.trunk.") for name in changed)


def test_shards_purify_as_the_table_of_the_same_pairs(cli: Cli, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "images")
    table = write_table(tmp_path / "pairs.csv", pairs)
    tars = write_shards(tmp_path / "shards", pairs)
    arch, path = pico_clip.write(tmp_path, "vit")
    expected = answered(purify(cli, arch, path, "--data", table))["sha256"]
    for out, flags in (("asked", ["--dataset-type", "webdataset"]), ("found", [])):
        assert answered(purify(cli, arch, path, "--data", tars, *flags, "--out", out))[
            "sha256"
        ] == (expected), out
    wrong = purify(cli, arch, path, "--data", tars, "--dataset-type", "class-folders", "--out", "w")
    assert wrong.exit_code == 5


def write_hub_folder(folder: Path, kind: str, words: Path) -> Path:
    """What open_clip pushes to the hub: weights twice, tokenizer, model and preprocessing."""
    model: Any = pico_clip.model(kind)
    model.visual.image_mean, model.visual.image_std = (0.3, 0.4, 0.5), (0.2, 0.25, 0.3)
    tokenizer = HFTokenizer(str(words), context_length=16)
    save_for_hf(model, tokenizer, dict(pico_clip.CONFIGS[kind]), str(folder))
    return folder


def by_folder(folder: Path) -> torch.Tensor:
    """What open_clip's own loader makes of a folder."""
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (model.visual.image_mean, model.visual.image_std)
    )
    with torch.no_grad():
        return model.eval().encode_image((BATCH - mean) / std)


@pytest.mark.parametrize("kind", ["rn", "siglip"])
def test_a_folder_of_open_clip_s_hub_comes_back_as_one(cli: Cli, tmp_path: Path, kind: str) -> None:
    words = pico_clip.write_hf(tmp_path / "words", "siglip")
    folder = write_hub_folder(tmp_path / "hub", kind, words)
    torch.testing.assert_close(ours("hf", folder), by_folder(folder), rtol=1e-5, atol=1e-6)
    table = write_table(tmp_path / "pairs.csv", write_pairs(tmp_path / "images"))
    answer = answered(purify(cli, "hf", folder, "--data", table))
    out = Path(answer["output"])
    kept = {path.name for path in folder.iterdir()} - {"open_clip_pytorch_model.bin"}
    assert {path.name for path in out.iterdir()} == kept
    config = "open_clip_config.json"
    assert json.loads((out / config).read_text()) == json.loads((folder / config).read_text())
    found = by_folder(out)
    torch.testing.assert_close(found, ours("hf", out), rtol=1e-5, atol=1e-6)
    assert (found - by_folder(folder)).abs().max() > 1e-3

    test = pico.write_classes(tmp_path / "test", 4, size=pico_clip.SIZE)
    flags = ("--before", folder, "--arch", "hf", "--test", test, "--probe", "zeroshot", "--json")
    rows = answered(cli("evaluate", out, *flags))["results"]
    assert [(row["which"], row["clean_accuracy"]["n"]) for row in rows] == [
        ("before", 12),
        ("after", 12),
    ]
