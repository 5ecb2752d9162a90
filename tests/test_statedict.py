import pytest
import torch
from torch import Tensor

from sslpurify import statedict
from sslpurify.statedict import (
    cast,
    cast_like,
    clone,
    combine,
    cosine,
    digest,
    distance,
    floating,
    identical,
    lerp,
    listing,
    require_same_keys,
)


def state(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "conv.weight": torch.randn(2, 3, 3, generator=draw).to(dtype),
        "bn.bias": torch.randn(2, generator=draw).to(dtype),
        "bn.num_batches_tracked": torch.tensor(seed + 5),
    }


def test_differences_are_listed_by_name_and_shape():
    other = state()
    del other["bn.bias"]
    other["fc.weight"] = torch.zeros(1)
    other["conv.weight"] = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"'bn.bias'.*'fc.weight'.*\(2, 3, 3\).*\(2, 3\)"):
        require_same_keys(state(), other)
    require_same_keys(state(0), state(1))


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: lerp(a, b, 0.5),
        lambda a, b: combine([(1.0, a), (1.0, b)]),
        distance,
        cosine,
        cast_like,
    ],
)
def test_every_function_of_two_states_wants_the_same_keys(function):
    with pytest.raises(ValueError, match="do not match"):
        function(state(), {"conv.weight": torch.zeros(2, 3, 3)})


def test_lerp_ends_in_its_ends_and_takes_integers_from_the_first():
    a, b = state(0), state(1)
    for t, end in ((0.0, a), (1.0, b)):
        point = lerp(a, b, t)
        assert all(identical(point[name], end[name]) for name in floating(end))
    middle = lerp(a, b, 0.25)
    assert torch.allclose(middle["bn.bias"], 0.75 * a["bn.bias"] + 0.25 * b["bn.bias"])
    assert middle["bn.num_batches_tracked"] == 5


def test_combine_is_the_weighted_sum_and_differentiable():
    a, b = state(0), state(1)
    a["bn.bias"].requires_grad_()
    total = combine([(0.5, a), (-2.0, b)])
    assert torch.equal(total["conv.weight"], 0.5 * a["conv.weight"] - 2.0 * b["conv.weight"])
    total["bn.bias"].sum().backward()
    assert torch.equal(a["bn.bias"].grad, torch.full((2,), 0.5))
    with pytest.raises(ValueError, match="at least one"):
        combine([])


def test_half_precision_is_summed_in_single_precision():
    ones = {"w": torch.ones(1, dtype=torch.float16)}
    small = {"w": torch.full((1,), 2.0**-11, dtype=torch.float16)}
    total = combine([(1.0, ones), (1.0, small), (1.0, small)])
    assert total["w"].dtype == torch.float16
    assert total["w"].item() == 1 + 2.0**-10


def test_distance_and_cosine():
    a = {"x": torch.tensor([3.0, 0.0]), "n": torch.tensor(1)}
    b = {"x": torch.tensor([0.0, 4.0]), "n": torch.tensor(100)}
    assert distance(a, b) == 5.0
    assert cosine(a, b) == 0.0
    assert cosine(a, a) == 1.0
    with pytest.raises(ValueError, match="all zero"):
        cosine(a, {"x": torch.zeros(2), "n": torch.tensor(1)})


def test_casting_leaves_integers_alone():
    half = cast(state(), torch.float16)
    assert half["bn.bias"].dtype == torch.float16
    assert half["bn.num_batches_tracked"].dtype == torch.int64
    back = cast_like(half, state())
    assert back["bn.bias"].dtype == torch.float32


def test_digest_depends_on_names_dtypes_shapes_and_bits_but_not_on_order():
    a = state()
    assert digest(a) == digest(dict(reversed(a.items())))
    changed = [
        {**a, "extra": torch.zeros(0)},
        {**a, "bn.bias": a["bn.bias"].double()},
        {**a, "bn.bias": a["bn.bias"].reshape(1, 2)},
        {**a, "bn.bias": a["bn.bias"].nextafter(torch.tensor(9.0))},
    ]
    assert len({digest(each) for each in (a, *changed)}) == 5
    assert digest({"x": torch.eye(3).t()[:, 1:]}) == digest({"x": torch.eye(3).t()[:, 1:].clone()})


def test_identical_compares_bits():
    nan, zero = torch.tensor(float("nan")), torch.tensor(0.0)
    assert identical(nan, nan.clone())
    assert not identical(zero, -zero)
    assert not identical(zero, zero.double())


def test_names_in_messages_are_escaped_and_shortened():
    assert listing(["\x1b[31mred", "a" * 500]) == rf"'\x1b[31mred', '{'a' * 77}...'"


def test_clone_is_detached():
    a = {"w": torch.zeros(1, requires_grad=True)}
    assert not clone(a)["w"].requires_grad
    assert statedict.clone(a)["w"] is not a["w"]
