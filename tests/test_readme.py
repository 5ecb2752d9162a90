import re
from pathlib import Path

import pytest
import torch

from sslpurify.checkpoint import read
from tests import pico

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_library_example_purifies_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 12
    quick = ", ".join(f"{key}={value}" for key, value in pico.QUICK.items())
    for asked, shown in ((pico.ARCH, "simclr/resnet18-cifar"), (f"({quick})", "()")):
        assert shown in example
        example = example.replace(f"TscSettings{shown}", f"TscSettings{asked}").replace(
            f'"{shown}"', f'"{asked}"'
        )
    torch.save(pico.state(), tmp_path / "encoder.pt")
    pico.write_images(tmp_path / "clean_images", 24, size=32)
    exec(example, {})  # noqa: S102 - our own README
    before, after = read(Path("encoder.pt")), read(Path("purified.pt"))
    assert list(after.tensors) == list(before.tensors)
    assert not torch.equal(
        after.tensors["backbone.layer4.1.conv2.weight"],
        before.tensors["backbone.layer4.1.conv2.weight"],
    )
