"""Checkpoints as programs out there write them, from one narrow encoder.

The patterns are those of the programs' own saving code: BadEncoder, DECREE, SSL-Backdoor, MoCo,
BYOL, DINO, lightly, Lightning, timm, open_clip, transformers.
"""

import argparse
import json
import pathlib
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests import pico

State = dict[str, Tensor]
BACKBONE, HEAD = "backbone.", "projection_head."
BY_INDEX = {
    "with max-pooling": ("0", "1", "4", "5", "6", "7"),
    "without": ("0", "1", "3", "4", "5", "6"),
    "without activations": ("0", "1", "2", "3", "4", "5"),
}
"""Places of conv1, bn1 and the four stages when a ResNet's children are put in a Sequential."""


def backbone(seed: int = 0) -> State:
    """Under torchvision's names."""
    return _under(pico.state(seed), BACKBONE)


def head(seed: int = 0) -> State:
    """Under lightly's names."""
    return _under(pico.state(seed), HEAD)


def _under(state: Mapping[str, Tensor], prefix: str) -> State:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def indexed(state: State, places: tuple[str, ...]) -> State:
    """A ResNet whose children stand in a Sequential."""
    names = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    place = dict(zip(names, places, strict=True))
    return {
        f"{place[name.partition('.')[0]]}.{name.partition('.')[2]}": tensor
        for name, tensor in state.items()
    }


def badencoder_simclr() -> Any:
    """``{'epoch', 'state_dict', 'optimizer'}`` with ``f.f.*`` and a projector ``g.*``."""
    projector = {name.removeprefix("layers."): value for name, value in head().items()}
    state = prefixed("f.f.", indexed(backbone(), BY_INDEX["without"])) | prefixed("g.", projector)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {"epoch": 200, "state_dict": state, "optimizer": optimizer.state_dict()}


def decree() -> Any:
    """One ``f.`` less, and no projector."""
    state = prefixed("f.", indexed(backbone(), BY_INDEX["without"]))
    return {"epoch": 3, "arch": "resnet18", "state_dict": state}


def moco() -> Any:
    """``module.encoder_q.*`` and its moving average, a queue, an untrained ``fc``."""
    state = prefixed("module.encoder_q.", backbone()) | prefixed("module.encoder_k.", backbone(1))
    queue = {"module.queue": torch.rand(4, 8), "module.queue_ptr": torch.zeros(1).long()}
    return {"epoch": 9, "arch": "resnet18", "state_dict": state | queue, "optimizer": {"state": {}}}


def byol() -> Any:
    return {
        "online_network": prefixed("encoder.", backbone()),
        "target_network": prefixed("encoder.", backbone(1)),
    }


def dino() -> Any:
    return {
        "student": prefixed("module.backbone.", backbone()),
        "teacher": prefixed("backbone.", backbone(1)),
        "args": argparse.Namespace(arch="resnet18", lr=np.float64(0.1)),
    }


class Config:
    """A class of the user's own, which is not installed here when the file is read."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


def lightning() -> Any:
    """``hyper_parameters`` with anything in it, callbacks by name, optimizers, loops."""
    return {
        "epoch": 9,
        "global_step": np.int64(99),
        "pytorch-lightning_version": "2.5.0",
        "state_dict": OrderedDict(
            prefixed(BACKBONE, backbone()) | prefixed(HEAD, head()) | {"loss.w": torch.ones(1)}
        ),
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": []}],
        "hyper_parameters": {
            "config": Config(optimizer=torch.optim.AdamW, path=pathlib.PurePosixPath("/data")),
            "schedule": (Config(), {1, 2}, frozenset("a"), np.arange(3), np.dtype("float32")),
        },
    }


def timm() -> Any:
    return {
        "arch": "resnet18",
        "args": argparse.Namespace(model="resnet18", workers=4),
        "epoch": 3,
        "metric": np.float64(76.5),
        "state_dict": backbone() | {"fc.weight": torch.rand(10, 16), "fc.bias": torch.rand(10)},
        "state_dict_ema": backbone(1),
        "version": 2,
    }


def metrics() -> Any:
    """Numbers of numpy, random states of numpy and Python, paths, dates."""
    return {
        "model_state_dict": backbone(),
        "best": np.float32(0.5),
        "history": [np.float64(1), np.bool_(True), np.str_("a"), np.array([[1.5]])],
        "rng": np.random.RandomState(0).get_state(),
        "where": pathlib.PurePosixPath("runs/1"),
        "complex": 1j,
        "bytes": b"\x00\xff",
    }


def tied() -> Any:
    """One module registered twice."""
    state = backbone()
    return {"state_dict": prefixed("encoder.", state), "swa": state}


def flat_memory() -> Any:
    """Every weight a view of one long vector, as sharded training leaves them."""
    state = backbone()
    kept = {name: t for name, t in state.items() if t.dtype == torch.float32}
    memory = torch.cat([t.reshape(-1) for t in kept.values()])
    ends = torch.tensor([t.numel() for t in kept.values()]).cumsum(0).tolist()
    views = {
        name: memory[end - t.numel() : end].view(t.shape)
        for (name, t), end in zip(kept.items(), ends, strict=True)
    }
    return {"state_dict": {name: views.get(name, t) for name, t in state.items()}}


def channels_last() -> Any:
    return {
        name: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t
        for name, t in backbone().items()
    }


def parameters() -> Any:
    return {
        name: torch.nn.Parameter(t) if t.is_floating_point() else t
        for name, t in backbone().items()
    }


def half() -> Any:
    return {n: t.half() if t.is_floating_point() else t for n, t in backbone().items()}


def bare() -> Any:
    return backbone()


TREES: dict[str, Callable[[], Any]] = {
    "bare": bare,
    "OrderedDict": lambda: OrderedDict(backbone()),
    "badencoder simclr": badencoder_simclr,
    "decree": decree,
    "badencoder imagenet": lambda: {"state_dict": prefixed("visual.", backbone())},
    "moco": moco,
    "byol": byol,
    "dino": dino,
    "lightning": lightning,
    "timm": timm,
    "metrics": metrics,
    "tied": tied,
    "flat memory": flat_memory,
    "channels last": channels_last,
    "parameters": parameters,
    "half": half,
    "ddp": lambda: {"model": prefixed("module.", backbone())},
    "compiled": lambda: {"model": prefixed("_orig_mod.", backbone())},
    "compiled ddp": lambda: {"state_dict": prefixed("module._orig_mod.", backbone())},
    "ddp compiled": lambda: {"state_dict": prefixed("_orig_mod.module.", backbone())},
    "lightly": lambda: prefixed(BACKBONE, backbone()) | prefixed(HEAD, head()),
    "lightly by index": lambda: prefixed(
        BACKBONE, indexed(backbone(), BY_INDEX["without activations"])
    ),
    "torchvision by index": lambda: {
        "model": prefixed("module.encoder.", indexed(backbone(), BY_INDEX["with max-pooling"]))
    },
    "wrapped twice": lambda: {"checkpoint": {"model": {"net": backbone()}}, "step": 1},
    "ema only": lambda: {"state_dict_ema": backbone(), "args": argparse.Namespace()},
}


def save_zip(tree: Any, path: Path) -> None:
    torch.save(tree, path)


def save_legacy(tree: Any, path: Path) -> None:
    torch.save(tree, path, _use_new_zipfile_serialization=False)


def save_protocol_5(tree: Any, path: Path) -> None:
    torch.save(tree, path, pickle_protocol=5)


def save_safetensors(path: Path) -> None:
    save_file(backbone(), path, metadata={"format": "pt"})


def save_folder(folder: Path, *, shards: int = 1, pickled: bool = False) -> None:
    """As ``save_pretrained`` writes it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "resnet"}))
    stem, suffix = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    state, files = backbone(), [f"{stem}.{suffix}"]
    if shards > 1:
        files = [f"{stem}-{n + 1:05}-of-{shards:05}.{suffix}" for n in range(shards)]
    names = {name: files[place % shards] for place, name in enumerate(state)}
    for file in files:
        part = {name: tensor for name, tensor in state.items() if names[name] == file}
        torch.save(part, folder / file) if pickled else save_file(part, folder / file)
    if shards > 1:
        index = {"metadata": {"total_size": 1}, "weight_map": names}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


def save_torchscript(path: Path) -> None:
    network = pico.encoder().fresh(0)
    network.load_state_dict(dict(pico.state()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it deprecated
        traced = torch.jit.trace(network.backbone.eval(), torch.zeros(1, 3, 16, 16))
        torch.jit.save(traced, path)
