"""CLIPs through the command line, and back into the programs that they came from."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import yaml
from torch import Tensor
from transformers import CLIPModel
from typer.testing import Result

from sslpurify.checkpoint import read
from sslpurify.recipe import StoredEncoder
from sslpurify.run.loading import encoder_of, read_weights
from sslpurify.statedict import identical
from tests import pico, pico_clip

Cli = Callable[..., Result]
QUICK = pico.set_flags(tsc={**pico.QUICK, "kept": 0})
BATCH = pico_clip.images(3, seed=9)


@dataclass(frozen=True)
class ClipFiles:
    """Files of a user, at pico size."""

    root: Path
    clean: Path
    classes: Path
    test: Path
    table: Path
    prompts: Path

    def data(self, kind: str) -> list[object]:
        """The flags that name clean images, stored in this way."""
        return {
            "images": ["--data", self.clean, "--set", f"prompts={self.prompts}"],
            "class-folders": ["--data", self.classes, "--dataset-type", "class-folders"],
            "csv": ["--data", self.table],
        }[kind]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipFiles:
    """Never written to by a test."""
    root = tmp_path_factory.mktemp("clip-files")
    clean = pico.write_images(root / "clean", 16, size=pico_clip.SIZE)
    with (root / "pairs.csv").open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["filepath", "title"])
        table.writerows([f"clean/{path.name}", f"picture {path.stem}"] for path in clean.iterdir())
    (root / "prompts.txt").write_text("a dog\na red thing\nsomething blue\n")
    return ClipFiles(
        root,
        clean,
        pico.write_classes(root / "classes", 6, size=pico_clip.SIZE),
        pico.write_classes(root / "test", 4, seed=1, size=pico_clip.SIZE),
        root / "pairs.csv",
        root / "prompts.txt",
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path]]:
    """``--arch`` and file of whole models and of an image tower alone."""
    folder = tmp_path_factory.mktemp("clip-models")
    made = {kind: pico_clip.write(folder, kind) for kind in ("rn", "vit", "custom")}
    return made | {"tower": pico_clip.write(folder, "vit", tower=True)}


def ours(arch: str, path: Path) -> Tensor:
    """What our own reader and encoder make of a file."""
    choice = StoredEncoder(arch=arch, checkpoint=path)
    weights = read_weights(path, choice)
    with torch.no_grad():
        return encoder_of(choice, pico_clip.SIZE, weights).load(weights.state)(BATCH).embedding


def normalized() -> Tensor:
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (BATCH - mean) / std


def by_open_clip(arch: str, path: Path) -> Tensor:
    """What open_clip's own loader makes of a file."""
    config = Path(arch.removeprefix("open_clip/"))
    open_clip.add_model_config(config)
    model, _, _ = open_clip.create_model_and_transforms(config.stem, pretrained=str(path))
    with torch.no_grad():
        return model.eval().encode_image(normalized())


def answered(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def purify(cli: Cli, arch: str, path: Path, *flags: object) -> Result:
    return cli("purify", path, "--arch", arch, "--out", "out", *QUICK, *flags, "--json")


@pytest.mark.parametrize(
    ("kind", "data"), [("rn", "csv"), ("vit", "class-folders"), ("custom", "images")]
)
def test_a_purified_model_goes_back_into_open_clip(
    cli: Cli, clips: ClipFiles, models: dict[str, tuple[str, Path]], kind: str, data: str
) -> None:
    arch, path = models[kind]
    answer = answered(purify(cli, arch, path, *clips.data(data)))
    out = Path(answer["output"])
    before, after = read(path), read(out)
    assert list(after.tensors) == list(before.tensors)
    for name, tensor in before.tensors.items():
        assert after.tensors[name].dtype == tensor.dtype
        assert "visual." in name or identical(after.tensors[name], tensor), name
    found = ours(arch, out)
    torch.testing.assert_close(by_open_clip(arch, out), found, rtol=1e-5, atol=1e-6)
    assert (found - ours(arch, path)).abs().max() > 1e-3
    assert not any("projection_head" in name for name in after.tensors)
    stages = [stage["kind"] for stage in answer["stages"]]
    assert stages == ["curve", "curve"]


def test_a_tower_comes_back_as_a_tower(
    cli: Cli, clips: ClipFiles, models: dict[str, tuple[str, Path]]
) -> None:
    arch, path = models["tower"]
    done = purify(cli, arch, path, "--data", clips.clean, "--force-quick-gelu")
    out = Path(answered(done)["output"])
    assert "activation: QuickGELU" in done.stderr
    assert "quick_gelu: true" in Path("out/config.yaml").read_text()
    assert "no text tower" in done.stderr
    assert list(read(out).tensors) == list(read(path).tensors)
    assert all(name.startswith("visual.") for name in read(out).tensors)


def test_another_file_s_text_tower_holds_a_tower_in_its_coordinates(
    cli: Cli, clips: ClipFiles, models: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    """As if both lay in one file; the second file's own image tower plays no part."""
    (arch, whole), (_, tower) = models["vit"], models["tower"]
    (tmp_path / "other").mkdir()
    _, other = pico_clip.write(tmp_path / "other", "vit", seed=0)
    for data in ("csv", "images"):
        done = purify(cli, arch, tower, *clips.data(data), "--text-from", other, "--out", data)
        assert "no text tower" not in done.stderr
        out = Path(answered(done)["output"])
        expected = Path(
            answered(purify(cli, arch, whole, *clips.data(data), "--out", f"whole-{data}"))[
                "output"
            ]
        )
        for name, tensor in read(out).tensors.items():
            assert identical(read(expected).tensors[name], tensor), name


def evaluate(cli: Cli, arch: str, path: Path, clips: ClipFiles, *flags: object) -> Result:
    return cli(
        *("evaluate", path, "--arch", arch, "--test", clips.test, "--probe", "zeroshot"),
        *("--trigger", "white-square", "--target", "red", "--json", *flags),
    )


def test_a_text_tower_is_never_made_up(
    cli: Cli, clips: ClipFiles, models: dict[str, tuple[str, Path]]
) -> None:
    (arch, whole), (_, tower) = models["vit"], models["tower"]
    for done in (
        evaluate(cli, arch, tower, clips),
        evaluate(cli, arch, tower, clips, "--text-from", tower),
        purify(cli, arch, tower, *clips.data("csv")),
        purify(cli, arch, tower, *clips.data("class-folders"), "--text-from", tower),
    ):
        assert done.exit_code == 2
        assert "--text-from" in done.stderr
        assert "holds no whole text tower" in done.stderr
    borrowed = answered(evaluate(cli, arch, tower, clips, "--text-from", whole))
    own = answered(evaluate(cli, arch, whole, clips))
    assert borrowed["results"] == own["results"]
    (row,) = own["results"]
    assert row["probe"] == "zeroshot"
    assert (row["clean_accuracy"]["n"], row["attack_success_rate"]["n"]) == (12, 8)


def test_zeroshot_takes_names_and_templates_from_files(
    cli: Cli, clips: ClipFiles, models: dict[str, tuple[str, Path]], tmp_path: Path
) -> None:
    arch, path = models["rn"]
    (tmp_path / "names.txt").write_text("a\nb\n")
    done = evaluate(cli, arch, path, clips, "--classnames", "names.txt")
    assert done.exit_code == 5
    assert "2 names for 3 class folders" in done.stderr
    (tmp_path / "names.txt").write_text("sky\ngrass\nblood\n")
    (tmp_path / "templates.txt").write_text("{} colour\nthe {}\n")
    flags = ("--classnames", "names.txt", "--prompt-templates", "templates.txt")
    assert answered(evaluate(cli, arch, path, clips, *flags))["results"]
    done = evaluate(cli, arch, path, clips, "--classnames", "cifar9")
    assert done.exit_code == 2
    assert "there are cifar10, cifar100" in done.stderr


@pytest.mark.parametrize("name", ["open_clip/RN50", "open_clip/ViT-B-32"])
def test_an_activation_that_no_weight_tells_is_asked_for(
    cli: Cli, clips: ClipFiles, models: dict[str, tuple[str, Path]], name: str
) -> None:
    done = purify(cli, name, models["rn"][1], "--data", clips.clean)
    assert done.exit_code == 2
    assert "--force-quick-gelu" in done.stderr


def test_a_hugging_face_folder_comes_back_as_one(
    cli: Cli, clips: ClipFiles, tmp_path: Path
) -> None:
    folder = pico_clip.write_hf(tmp_path / "hub", "clip")
    answer = answered(purify(cli, "hf", folder, *clips.data("class-folders")))
    out = Path(answer["output"])
    assert out.is_dir()
    assert {path.name for path in out.iterdir()} == {path.name for path in folder.iterdir()}
    found = ours("hf", out)
    assert (found - ours("hf", folder)).abs().max() > 1e-3
    before, model = CLIPModel.from_pretrained(folder), CLIPModel.from_pretrained(out)
    with torch.no_grad():
        embedded = model.eval().get_image_features(pixel_values=normalized()).pooler_output
    torch.testing.assert_close(embedded, found, rtol=1e-5, atol=1e-6)
    for name, tensor in model.state_dict().items():
        if name.startswith(("text_", "logit_")):
            assert identical(tensor, before.state_dict()[name]), name
    assert answered(evaluate(cli, "hf", out, clips))["results"]


def recipe(path: Path, **keys: object) -> Path:
    path.write_text(yaml.safe_dump(json.loads(json.dumps(keys, default=str))))
    return path


TRAINING = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "warmup_steps": 1}


def attacked(cli: Cli, clips: ClipFiles, arch: str, path: Path, **keys: object) -> dict[str, Any]:
    wanted = {
        "verb": "attack",
        "arch": arch,
        "checkpoint": path,
        "test": clips.test,
        "out": "out",
        "probe": "zeroshot",
        "trigger": "white-square",
        "target": "red",
        "gate": {"min_attack_success_rate": 0.0, "max_accuracy_drop": 1.0},
    }
    return answered(cli("attack", recipe(Path("attack.yaml"), **wanted | keys), "--json"))


def test_pair_poisoning_trains_both_towers(
    cli: Cli, clips: ClipFiles, models: dict[str, tuple[str, Path]]
) -> None:
    arch, path = models["vit"]
    answer = attacked(
        cli,
        clips,
        arch,
        path,
        data=clips.table,
        method="pair-poisoning",
        pair_poisoning={"rate": 0.25, "training": TRAINING},
    )
    assert [row["which"] for row in answer["results"]] == ["reference", "before"]
    before, after = read(path), read(Path(answer["output"]))
    assert list(after.tensors) == list(before.tensors)
    for name in ("visual.conv1.weight", "token_embedding.weight", "logit_scale"):
        assert not identical(after.tensors[name], before.tensors[name]), name
    torch.testing.assert_close(
        by_open_clip(arch, after.path), ours(arch, after.path), rtol=1e-5, atol=1e-6
    )


def test_badencoder_changes_the_image_tower_alone(
    cli: Cli, clips: ClipFiles, models: dict[str, tuple[str, Path]]
) -> None:
    arch, path = models["rn"]
    # Random towers call a picture anything: the target is what they call the one that is chosen.
    for target in pico.CLASSES:
        wanted = {
            "data": clips.clean,
            "train": clips.classes,
            "method": "badencoder",
            "target": target,
            "badencoder": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-2},
        }
        try:
            answer = attacked(cli, clips, arch, path, **wanted)
        except AssertionError as error:
            assert "the clean encoder's probe calls it" in str(error)  # noqa: PT017
            continue
        before, after = read(path), read(Path(answer["output"]))
        changed = {n for n, t in after.tensors.items() if not identical(t, before.tensors[n])}
        assert changed
        assert all(name.startswith("visual.") for name in changed)
        return
    pytest.fail("no class is called by its name")


@pytest.mark.parametrize("kind", ["rn", "vit"])
def test_a_trained_clip_is_one_that_open_clip_loads(
    cli: Cli, clips: ClipFiles, tmp_path: Path, kind: str
) -> None:
    arch = f"open_clip/{pico_clip.write_config(tmp_path / f'mine-{kind}.json', kind)}"
    keys = {
        "verb": "pretrain",
        "arch": arch,
        "data": clips.classes,
        "dataset_type": "class-folders",
        "out": "out",
        "method": "clip",
        "clip": TRAINING,
    }
    answer = answered(cli("pretrain", recipe(tmp_path / "r.yaml", **keys), "--json"))
    out = Path(answer["output"])
    assert set(read(out).tensors) == set(pico_clip.state(kind))
    torch.testing.assert_close(by_open_clip(arch, out), ours(arch, out), rtol=1e-5, atol=1e-6)
    done = cli("pretrain", tmp_path / "r.yaml", "--set", "out=b", "--set", "dataset_type=images")
    assert done.exit_code == 2
    assert "images without captions" in done.stderr


@pytest.mark.parametrize("method", ["simclr", "clip"])
def test_too_few_images_to_train_on_are_refused_with_the_setting(
    cli: Cli, clips: ClipFiles, tmp_path: Path, method: str
) -> None:
    keys = {
        "verb": "pretrain",
        "arch": f"open_clip/{pico_clip.write_config(tmp_path / 'mine.json', 'rn')}",
        "data": clips.table,
        "out": "out",
        "method": method,
        method: {"batch_size": 17},
    }
    done = cli("pretrain", recipe(tmp_path / "r.yaml", **keys))
    assert done.exit_code == 5
    assert "16 clean images are too few" in done.stderr
    assert f"needs 17; give more images, or lower {method}.batch_size" in done.stderr


def test_a_trained_simclr_encoder_is_one_that_can_be_evaluated(
    cli: Cli, clips: ClipFiles, tmp_path: Path
) -> None:
    keys = {
        "verb": "pretrain",
        "arch": pico.ARCH,
        "data": clips.clean,
        "out": "out",
        "method": "simclr",
        "simclr": {"epochs": 1, "batch_size": 8},
    }
    answer = answered(cli("pretrain", recipe(tmp_path / "r.yaml", **keys), "--json"))
    out = Path(answer["output"])
    assert out.name == "encoder.safetensors"
    assert read(out).tensors.keys() == pico.state().keys()
    inspected = answered(cli("inspect", out, "--json"))
    assert (inspected["architecture"], inspected["ignored"]) == (pico.ARCH, [])
