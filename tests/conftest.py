from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from typer.testing import CliRunner, Result

from sslpurify.cli import app
from tests import pico

# A busy machine is slow, not wrong.
settings.register_profile("sslpurify", deadline=None)
settings.load_profile("sslpurify")


@dataclass(frozen=True)
class Files:
    """Files of a user, at pico size."""

    root: Path
    encoder: Path
    clean: Path
    train: Path
    test: Path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Never written to by a test."""
    root = tmp_path_factory.mktemp("files")
    return Files(
        root=root,
        encoder=pico.write_checkpoint(root / "encoder.safetensors"),
        clean=pico.write_images(root / "clean", 24),
        train=pico.write_classes(root / "train", 10),
        test=pico.write_classes(root / "test", 6, seed=1),
    )


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command line in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run
