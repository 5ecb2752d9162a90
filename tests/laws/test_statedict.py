"""Law 10: no function of the weight algebra changes a state, or hands out its memory."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sslpurify.statedict import (
    cast,
    cast_like,
    clone,
    combine,
    cosine,
    digest,
    distance,
    identical,
    joined,
    lerp,
    parted,
)

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64)
PART = st.text(max_size=8).filter(lambda name: "/" not in name)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    names = draw(st.lists(st.text(max_size=8), min_size=1, max_size=4, unique=True))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    shapes = st.lists(st.integers(1, 3), max_size=3)
    first: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    for name in names:
        shape, dtype = draw(shapes), draw(st.sampled_from(DTYPES))
        for state in (first, second):
            values = 8 * torch.randn(shape, generator=random, dtype=torch.float64)
            state[name] = values.to(dtype)
    first["always"], second["always"] = torch.ones(2), torch.full((2,), 3.0)
    return first, second


RETURNING_STATES = {
    "clone": lambda a, _: clone(a),
    "lerp": lambda a, b: lerp(a, b, 0.3),
    "lerp to the start": lambda a, b: lerp(a, b, 0.0),
    "lerp to the end": lambda a, b: lerp(a, b, 1.0),
    "combine": lambda a, b: combine([(1.0, a), (-0.5, b)]),
    "combine one": lambda a, _: combine([(1.0, a)]),
    "cast": lambda a, _: cast(a, torch.float32),
    "cast_like": cast_like,
}


@pytest.mark.parametrize("name", RETURNING_STATES)
@given(states=pairs())
def test_results_share_no_memory_with_arguments(name, states):
    a, b = states
    before = digest(a), digest(b)
    for tensor in RETURNING_STATES[name](a, b).values():
        tensor.fill_(1)
    assert (digest(a), digest(b)) == before


@given(states=pairs())
def test_measuring_changes_nothing(states):
    a, b = states
    before = digest(a), digest(b)
    distance(a, b)
    cosine(a, b)
    assert (digest(a), digest(b)) == before


@given(states=pairs(), t=st.floats(0, 1))
def test_lerp_is_a_weighted_sum_between_exact_ends(states, t):
    a, b = states
    for end, at in ((a, 0.0), (b, 1.0)):
        point = lerp(a, b, at)
        assert all(identical(point[k], end[k]) for k in end if end[k].is_floating_point())
    point, summed = lerp(a, b, t), combine([(1 - t, a), (t, b)])
    assert all(torch.allclose(point[k].double(), summed[k].double(), 0.02, 0.05) for k in a)


@given(states=pairs())
def test_distance_is_a_metric_and_cosine_is_symmetric(states):
    a, b = states
    assert distance(a, a) == 0
    assert distance(a, b) == distance(b, a) >= 2 * 2**0.5 - 1e-9
    assert cosine(a, b) == cosine(b, a)
    assert cosine(a, a) == pytest.approx(1)


@given(states=pairs(), names=st.lists(PART, min_size=2, max_size=2, unique=True))
def test_joined_states_come_apart_again(states, names):
    parts = dict(zip(names, states, strict=True))
    whole = joined({"outer": joined(parts)})
    apart = parted(parted(whole)["outer"])
    assert {part: list(its) for part, its in apart.items()} == {
        part: list(its) for part, its in parts.items()
    }
    assert all(apart[part][key] is its for part in parts for key, its in parts[part].items())
    assert parted({})["missing"] == {}
