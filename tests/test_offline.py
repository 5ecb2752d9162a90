"""No verb tries the network, though nothing tells the libraries to stay offline."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from typer.testing import Result

from tests import pico, pico_clip
from tests.conftest import Files

Cli = Callable[..., Result]
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
SHAPE = ("--arch", pico.ARCH, "--force-image-size", pico.SIZE)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was tried; each attempt fails at once."""
    attempts: list[str] = []

    def refuse(*arguments: Any, **_: Any) -> NoReturn:
        attempts.append(str(arguments))
        raise OSError("the network is blocked")

    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    return attempts


def test_the_block_holds(tried: list[str]) -> None:
    with pytest.raises(OSError, match="blocked"), socket.socket() as endpoint:
        endpoint.connect(("127.0.0.1", 9))
    assert tried


def test_no_verb_tries_the_network(
    cli: Cli, files: Files, tmp_path: Path, tried: list[str]
) -> None:
    torch.save({"state_dict": pico.state()}, tmp_path / "encoder.pt")
    page = tmp_path / "page.pt"
    page.write_text("<html>https://example.org</html>")
    quick = pico.set_flags(tsc=pico.QUICK)
    probing = ("--train", files.train, "--test", files.test, "--set", "knn.k=5")
    for arguments, code in (
        (("inspect", tmp_path / "encoder.pt"), 0),
        (("inspect", page), 4),
        (
            (
                "purify",
                tmp_path / "encoder.pt",
                *SHAPE,
                "--data",
                files.clean,
                "--out",
                "o",
                *quick,
            ),
            0,
        ),
        (("evaluate", "o/encoder.purified.pt", *SHAPE, *probing), 0),
        (("recipe", "list"), 0),
    ):
        done = cli(*arguments)
        assert done.exit_code == code, done.stderr
    assert tried == []


@pytest.mark.parametrize("kind", ["open_clip", "hf"])
def test_no_text_tower_is_fetched(
    kind: str, cli: Cli, files: Files, tmp_path: Path, tried: list[str]
) -> None:
    """Tokenizers and configurations are what libraries like to download."""
    if kind == "hf":
        arch, path = "hf", pico_clip.write_hf(tmp_path / "hub", "clip")
    else:
        arch, path = pico_clip.write(tmp_path, "vit")
    probing = ("--test", files.test, "--probe", "zeroshot")
    pairs = ("--data", files.test, "--dataset-type", "class-folders", "--out", "o")
    quick = pico.set_flags(tsc=pico.QUICK)
    for arguments in (
        ("inspect", path),
        ("evaluate", path, *probing),
        ("purify", path, *pairs, *quick),
    ):
        done = cli(*arguments, "--arch", arch)
        assert done.exit_code == 0, done.stderr
    assert tried == []
