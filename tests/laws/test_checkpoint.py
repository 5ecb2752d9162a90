"""Law 9: a round trip through a file is bit-exact and keeps keys, order, dtypes and container."""

import math
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sslpurify.checkpoint import read, replace, write
from sslpurify.statedict import digest, identical
from tests.checkpoint.files import SAVERS

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.bool)
# No lone surrogates, which have no bytes, and no name that torch's containers use themselves.
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@st.composite
def states(draw: st.DrawFn) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    for name in draw(st.lists(NAMES, min_size=1, max_size=5, unique=True)):
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        values = 8 * torch.rand(shape, generator=random)
        state[name] = values.to(draw(st.sampled_from(DTYPES)))
    return state


@pytest.mark.parametrize("container", SAVERS)
@settings(deadline=None, max_examples=30)
@given(state=states(), wrapped=st.booleans())
def test_round_trip(container, state, wrapped):
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source", Path(folder) / "target"
        inside = wrapped and container != "safetensors"
        SAVERS[container]({"state_dict": state, "epoch": 1} if inside else state, source)
        before = source.read_bytes()
        checkpoint = read(source)
        write(replace(checkpoint, checkpoint.tensors), target)
        again = read(target)
        assert source.read_bytes() == before
    assert (again.container, again.wrapper, again.metadata) == (
        container,
        ("state_dict",) if inside else (),
        checkpoint.metadata,
    )
    assert list(again.tensors) == list(checkpoint.tensors)
    assert again.tensors.keys() == state.keys()
    assert all(identical(again.tensors[name], state[name]) for name in state)


@pytest.mark.parametrize("container", SAVERS)
@settings(deadline=None, max_examples=15)
@given(state=states(), data=st.data())
def test_replacing_changes_neither_the_checkpoint_nor_the_new_values(container, state, data):
    with tempfile.TemporaryDirectory() as folder:
        SAVERS[container](state, Path(folder) / "source")
        checkpoint = read(Path(folder) / "source")
        name = data.draw(st.sampled_from(sorted(state)))
        new = {name: torch.ones_like(state[name])}
        before, before_new = digest(checkpoint.tensors), digest(new)
        changed = replace(checkpoint, new)
        changed.tensors[name].fill_(0)
        write(changed, Path(folder) / "target")
        assert math.prod(read(Path(folder) / "target").tensors[name].shape) == new[name].numel()
    assert (digest(checkpoint.tensors), digest(new)) == (before, before_new)
    assert digest(checkpoint.tensors) == digest(state)
