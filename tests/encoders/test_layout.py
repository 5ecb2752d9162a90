import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor, nn
from torchvision import models

from sslpurify.checkpoint import Checkpoint, read, write
from sslpurify.encoders import (
    HeadLayout,
    Layout,
    create,
    extract,
    guess,
    locate,
    restore,
    simclr_architectures,
)
from sslpurify.errors import CheckpointError
from sslpurify.statedict import digest, identical

SHARED = Path(os.environ.get("SSLPURIFY_SHARED", Path(__file__).parents[3] / "shared"))
DEPTHS = (18, 34, 50)
WIDTHS = {18: 512, 34: 512, 50: 2048}


@cache
def shapes(depth: int) -> dict[str, tuple[int, ...]]:
    """torchvision's own."""
    with torch.device("meta"):
        state = models.get_model(f"resnet{depth}").state_dict().items()
    return {name: tuple(tensor.shape) for name, tensor in state if not name.startswith("fc.")}


ENCODERS = {name: create(name) for name in simclr_architectures()}
PICO_ENCODER = create("simclr/resnet18-w2")
PICO = PICO_ENCODER.shapes


def find(tensors: Mapping[str, Tensor], architecture: str) -> Layout:
    return locate(tensors, ENCODERS[architecture], ENCODERS.values())


def find_pico(tensors: Mapping[str, Tensor]) -> Layout:
    return locate(tensors, PICO_ENCODER, [PICO_ENCODER])


def meta(shapes: Mapping[str, tuple[int, ...]], prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def state(prefix: str = "", seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        prefix + name: torch.rand(shape, generator=draw) if shape else torch.tensor(7)
        for name, shape in PICO.items()
    }


def checkpoint(tensors: dict[str, Tensor], wrapper: str = "state_dict") -> Checkpoint:
    tree: dict[str, Any] = {"epoch": 3, wrapper: tensors}
    return Checkpoint(Path("model.pt"), "0", "torch-zip", tree, (wrapper,), tensors, {})


@pytest.mark.parametrize(
    "prefix",
    [
        *("", "module.", "_orig_mod.", "backbone.", "f.", "net.", "encoder.", "model.backbone."),
        *("module._orig_mod.", "_orig_mod.module.model.encoder_q.", "online_network.encoder."),
        "layer1.",
    ],
)
@pytest.mark.parametrize("architecture", ENCODERS)
def test_any_prefix_is_discovered(architecture, prefix):
    expected = ENCODERS[architecture].shapes
    others = {"queue": torch.empty(9), f"{prefix}fc.weight": torch.empty(9, 9)}
    tensors = meta(expected, prefix) | others
    layout = find(tensors, architecture)
    assert layout.prefix == prefix
    assert layout.keys == {f"backbone.{name}": prefix + name for name in expected}
    assert layout.ignored == tuple(others)
    assert layout.absent == layout.copies == ()
    assert not layout.has_head
    first, *rest = guess(tensors, ENCODERS.values())
    assert (first.architecture, first.layout, first.confidence) == (architecture, layout, 1.0)
    assert all(other.confidence < 1 and other.layout is None for other in rest)


@pytest.mark.parametrize("asked", ENCODERS)
@pytest.mark.parametrize("there", ENCODERS)
def test_another_architecture_is_refused_and_guessed(asked, there):
    tensors = meta(ENCODERS[there].shapes, "module.")
    if asked == there:
        return
    with pytest.raises(CheckpointError, match=f"no encoder of type {asked}:") as caught:
        find(tensors, asked)
    assert f"Best guess: {there} (100% of its tensors fit)" in str(caught.value)
    assert "'module.'" in str(caught.value)


def test_the_message_lists_what_is_wrong():
    tensors = meta(shapes(18), "net.")
    del tensors["net.layer4.1.bn2.weight"]
    tensors["net.conv1.weight"] = torch.empty(64, 1, 7, 7)
    tensors["net.layer1.2.conv1.weight"] = torch.empty(1)
    with pytest.raises(CheckpointError) as caught:
        find(tensors, "simclr/resnet18")
    message = str(caught.value)
    assert "under the prefix 'net.' 118 of 120 tensors fit" in message
    assert "missing are 'layer4.1.bn2.weight'" in message
    assert "'conv1.weight' is (64, 1, 7, 7) and not (64, 3, 7, 7)" in message
    assert "'layer1.2.conv1.weight' do not belong to it" in message
    assert "Best guess: simclr/resnet18" in message


def test_a_file_without_any_encoder():
    with pytest.raises(CheckpointError, match=r"begins with 'text.token'.*No other known"):
        find({"text.token": torch.empty(3)}, "simclr/resnet18")
    assert guess({"text.token": torch.empty(3)}, ENCODERS.values()) == []
    with pytest.raises(CheckpointError, match="holds no encoder"):
        find({}, "simclr/resnet18")


def test_prefixes_are_not_mixed():
    tensors = meta(shapes(18))
    tensors["module.conv1.weight"] = tensors.pop("conv1.weight")
    with pytest.raises(CheckpointError, match=r"missing are 'conv1.weight'"):
        find(tensors, "simclr/resnet18")


def test_prefixes_are_not_cut_out_of_the_middle():
    tensors = meta(shapes(18), "module.")
    tensors["module.layer1.module.0.conv1.weight"] = tensors.pop("module.layer1.0.conv1.weight")
    with pytest.raises(CheckpointError, match=r"missing are 'layer1.0.conv1.weight'"):
        find(tensors, "simclr/resnet18")


@pytest.mark.parametrize(
    ("used", "copy"),
    [
        ("module.encoder_q.", "module.encoder_k."),
        ("backbone.", "backbone_momentum."),
        ("student_backbone.", "teacher_backbone."),
        ("online_network.encoder.", "target_network.encoder."),
        ("module.base_encoder.", "module.momentum_encoder."),
        ("model.", "model_ema."),
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_of_two_encoders_the_trained_one_is_taken_and_the_other_told(used, copy, reverse):
    tensors = meta(shapes(18), used) | meta(shapes(18), copy)
    if reverse:
        tensors = dict(reversed(tensors.items()))
    layout = find(tensors, "simclr/resnet18")
    assert layout.prefix == used
    assert layout.copies == (copy,)
    assert set(layout.ignored) == {copy + name for name in shapes(18)}
    assert guess(tensors, ENCODERS.values())[0].layout == layout


@pytest.mark.parametrize(("a", "b"), [("", "module."), ("net_1.", "net_2.")])
def test_two_encoders_of_equal_rank_are_an_error(a, b):
    tensors = meta(shapes(18), a) | meta(shapes(18), b)
    with pytest.raises(CheckpointError, match="holds 2 encoders") as caught:
        find(tensors, "simclr/resnet18")
    assert repr(a) in str(caught.value)
    assert repr(b) in str(caught.value)
    best = guess(tensors, ENCODERS.values())[0]
    assert (best.architecture, best.layout, best.confidence) == ("simclr/resnet18", None, 1.0)


def head_state(batch_norm: bool, hidden: int, out: int, width: int) -> dict[str, Tensor]:
    head = SimCLRProjectionHead(width, hidden, out, batch_norm=batch_norm)
    return dict(head.state_dict())


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(
    ("prefix", "place"),
    [
        ("backbone.", "projection_head."),
        ("", "projection_head."),
        ("module.backbone.", "module.projection_head."),
        ("module.", "module.projector."),
        ("f.", "g."),
        ("module.", "projection_head."),
    ],
)
def test_the_head_of_lightly_is_found(prefix, place, depth):
    width = WIDTHS[depth]
    found = head_state(True, 96, 24, width)
    tensors = meta(shapes(depth), prefix) | {place + name: found[name] for name in found}
    layout = find(tensors, f"simclr/resnet{depth}")
    assert layout.head == HeadLayout(hidden=96, out=24, last_norm=True)
    assert layout.has_head
    assert layout.ignored == ()
    own = {name: tuple(tensor.shape) for name, tensor in found.items()}
    assert layout.head.shapes(width) == own
    assert {f"projection_head.{name}": place + name for name in own}.items() <= layout.keys.items()


def test_a_head_without_a_last_norm_is_found():
    layers = nn.Sequential(
        nn.Linear(512, 96, bias=False), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, 24)
    )
    found = {f"projection_head.layers.{name}": value for name, value in layers.state_dict().items()}
    del found["projection_head.layers.1.num_batches_tracked"]
    layout = find(meta(shapes(18), "backbone.") | found, "simclr/resnet18")
    assert layout.head == HeadLayout(hidden=96, out=24, last_norm=False)
    assert layout.absent == ("projection_head.layers.1.num_batches_tracked",)
    assert layout.ignored == ()


def other_heads() -> dict[str, dict[str, Tensor]]:
    proper = {f"projection_head.{key}": value for key, value in head_state(True, 9, 4, 512).items()}
    no_norm = head_state(False, 9, 4, 512)
    deeper = SimCLRProjectionHead(512, 9, 4, num_layers=3).state_dict()
    return {
        "of another width": {
            f"projection_head.{key}": value for key, value in head_state(True, 9, 4, 64).items()
        },
        "without norms": {f"projection_head.{key}": value for key, value in no_norm.items()},
        "of three layers": {f"projection_head.{key}": value for key, value in deeper.items()},
        "with a bias before a norm": proper | {"projection_head.layers.0.bias": torch.ones(9)},
        "incomplete": {key: value for key, value in proper.items() if "running_var" not in key},
        "under another name": {
            key.replace("projection", "prediction"): value for key, value in proper.items()
        },
        "elsewhere": {f"other.{key}": value for key, value in proper.items()},
        "in a plain sequence": {"projection_head.0.weight": torch.ones(9, 512)},
    }


@pytest.mark.parametrize("name", other_heads())
def test_other_heads_are_ignored(name):
    head = other_heads()[name]
    layout = find(meta(shapes(18), "backbone.") | head, "simclr/resnet18")
    assert layout.head is None
    assert layout.ignored == tuple(head)


def test_counters_may_be_missing_and_are_not_written_back():
    tensors = {name: value for name, value in state("f.").items() if "num_batches" not in name}
    source = checkpoint(tensors)
    layout = find_pico(tensors)
    assert len(layout.absent) == 20
    extracted = extract(source, layout)
    assert list(extracted) == [f"backbone.{name}" for name in PICO if "num_b" not in name] + list(
        layout.absent
    )
    assert all(extracted[name].item() == 0 for name in layout.absent)
    assert {extracted[name].dtype for name in layout.absent} == {torch.int64}
    extracted["backbone.bn1.bias"] = torch.zeros(2)
    assert list(restore(source, layout, extracted).tensors) == list(tensors)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_an_untouched_encoder_goes_back_bit_for_bit(dtype):
    tensors = {name: value.to(dtype) for name, value in state("module.").items()}
    tensors["module.bn1.bias"] = -torch.zeros_like(tensors["module.bn1.bias"])
    before = digest(tensors)
    source = checkpoint(tensors)
    layout = find_pico(tensors)
    extracted = extract(source, layout)
    assert {value.dtype for value in extracted.values()} == {torch.float32, torch.int64}
    restored = restore(source, layout, extracted)
    assert digest(restored.tensors) == before
    assert list(restored.tensors) == list(tensors)
    for value in extracted.values():
        value.zero_()
    assert digest(source.tensors) == digest(restored.tensors) == before


def test_new_weights_go_back_in_the_dtypes_of_the_file():
    tensors = {name: value.half() for name, value in state("encoder_q.").items()}
    tensors["encoder_q.bn1.num_batches_tracked"] = torch.tensor(7)
    tensors["queue"] = torch.ones(3)
    source = checkpoint(tensors)
    layout = find_pico(tensors)
    new = {f"backbone.{name}": value for name, value in state(seed=1).items()}
    head = {"projection_head.layers.0.weight": torch.ones(3, 16)}
    restored = restore(source, layout, new | head)
    assert list(restored.tensors) == list(tensors)
    for name, old in tensors.items():
        expected = new.get(f"backbone.{name.removeprefix('encoder_q.')}", old).to(old.dtype)
        assert identical(restored.tensors[name], expected)


def test_incomplete_or_misshaped_weights_do_not_go_back():
    source = checkpoint(state())
    layout, new = find_pico(source.tensors), extract(source, find_pico(source.tensors))
    with pytest.raises(CheckpointError, match=r"misshaped|is \(2,\) in the file, not \(3,\)"):
        restore(source, layout, new | {"backbone.bn1.bias": torch.ones(3)})
    del new["backbone.bn1.bias"]
    with pytest.raises(CheckpointError, match=r"lack 'backbone.bn1.bias'"):
        restore(source, layout, new)


def test_the_published_encoder_makes_the_round_trip(tmp_path):
    path = SHARED / "data" / "simclr_resnet18_cifar10.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    source = read(path)
    layout = find(source.tensors, "simclr/resnet18")
    assert layout.prefix == "backbone."
    assert layout.head == HeadLayout(hidden=512, out=128, last_norm=False)
    assert layout.ignored == layout.absent == layout.copies == ()
    restored = restore(source, layout, extract(source, layout))
    sha256 = write(restored, tmp_path / "copy.safetensors")
    assert sha256 == json.loads(path.with_suffix(".json").read_text())["sha256"]
