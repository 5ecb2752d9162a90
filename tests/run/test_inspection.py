from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sslpurify.encoders import create
from sslpurify.errors import CheckpointError, ConfigError, UnsafeInputError
from sslpurify.run import inspect
from tests import pico


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("canary"),)


def test_an_encoder_of_full_width_is_told_from_its_small_stem(tmp_path: Path) -> None:
    for arch in ("simclr/resnet18", "simclr/resnet18-cifar"):
        path = tmp_path / "encoder.safetensors"
        shapes = create(arch).shapes
        save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path)
        answer = inspect(path, None)
        assert answer.data["architecture"] == arch
        assert answer.data["problems"] == []


def test_not_a_number_is_a_problem_that_names_the_tensor(tmp_path: Path) -> None:
    state = pico.state()
    state["backbone.conv1.weight"] = torch.full_like(state["backbone.conv1.weight"], torch.nan)
    save_file(state, tmp_path / "nan.safetensors")
    (problem,) = inspect(tmp_path / "nan.safetensors", None).data["problems"]
    assert "backbone.conv1.weight" in problem


def test_a_file_of_something_else_is_a_problem(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors")
    data = inspect(tmp_path / "x.safetensors", None).data
    assert (data["architecture"], data["ignored"]) == (None, ["x"])
    assert data["problems"]
    (tmp_path / "page.pt").write_text("<html>")
    assert inspect(tmp_path / "page.pt", None).data["problems"]


def test_a_missing_file_an_unknown_architecture_and_code_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError):
        inspect(tmp_path / "missing.pt", None)
    encoder = pico.write_checkpoint(tmp_path / "encoder.safetensors")
    with pytest.raises(ConfigError, match="unknown architecture"):
        inspect(encoder, "resnet")
    torch.save({"state_dict": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(UnsafeInputError):
        inspect(tmp_path / "evil.pt", None)
    assert not (tmp_path / "canary").exists()
