import json

import pytest
import torch

from sslpurify.errors import CheckpointError
from sslpurify.symmetry.permutation import Permutation, axis_order
from sslpurify.symmetry.spec import Group, PermutationSpec, Probe, Touch, View

from . import adapter
from .networks import (
    PicoGrouped,
    PicoTransformer,
    grouped_spec,
    images,
    randomize,
    transformer_spec,
)

GROUP = Group("g", 3, (Touch("w", 0), Touch("b", 0)), (View(Probe("m")),), "inner")
SPEC = PermutationSpec((GROUP,))
ORDER = torch.tensor([2, 0, 1])


def key_biases() -> set[tuple[str, Touch]]:
    """A bias of the keys adds the same to all scores of a query, and softmax ignores it."""
    return {
        (group.name, touch)
        for group in transformer_spec().groups
        if group.kind in {"heads", "qk"}
        for touch in group.touches
        if touch.name.endswith("in_proj_bias") and 12 <= touch.offset < 24
    }


@pytest.mark.parametrize(
    ("network", "spec", "no_effect"),
    [
        (PicoTransformer(), transformer_spec(), key_biases()),
        (PicoGrouped(), grouped_spec(), ()),
    ],
    ids=["attention", "grouped"],
)
def test_blocks_offsets_and_selections_describe_more_than_resnets(network, spec, no_effect):
    randomize(network)
    batch = images()
    assert spec.problems(adapter.shapes(network)) == []
    adapter.assert_invariant(network, spec, batch, seed=2)
    adapter.assert_restores_bits(network, spec, seed=3)
    adapter.assert_every_touch_matters(network, spec, batch, no_effect)
    adapter.assert_probes_follow(network, spec, batch)


def test_unit_order_i_stands_at_position_i():
    state = {"w": torch.arange(6).reshape(3, 2), "b": torch.tensor([0.0, 1.0, 2.0])}
    result = Permutation(((GROUP, ORDER),)).apply(state)
    assert result["w"].tolist() == [[4, 5], [0, 1], [2, 3]]
    assert result["b"].tolist() == [2.0, 0.0, 1.0]


def test_untouched_tensors_are_shared_and_nothing_is_changed():
    state = {"w": torch.arange(6).reshape(3, 2), "b": torch.zeros(3), "c": torch.ones(2)}
    before = {name: tensor.clone() for name, tensor in state.items()}
    result = Permutation(((GROUP, ORDER),)).apply(state)
    assert result["c"] is state["c"]
    adapter.assert_same(state, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_dtype_and_shape_stay(dtype):
    state = {"w": torch.zeros(3, 2, dtype=dtype), "b": torch.zeros(3, dtype=dtype)}
    result = Permutation(((GROUP, ORDER),)).apply(state)
    assert {(tensor.dtype, tensor.shape) for tensor in result.values()} == {
        (dtype, (3, 2)),
        (dtype, (3,)),
    }


@pytest.mark.parametrize(
    "order",
    [
        torch.tensor([0, 1]),
        torch.tensor([0, 1, 1]),
        torch.tensor([1, 2, 3]),
        torch.tensor([0.0, 1.0, 2.0]),
        torch.tensor([[0, 1, 2]]),
    ],
)
def test_an_order_must_be_a_bijection(order):
    with pytest.raises(ValueError, match="group 'g': the order must hold each of the numbers"):
        Permutation(((GROUP, order),))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"w": torch.zeros(3, 2)}, "group 'g': the weights hold no 'b'"),
        ({"w": torch.zeros(2, 2), "b": torch.zeros(3)}, r"axis 0 of 'w' \(2, 2\)"),
        ({"w": torch.zeros(()), "b": torch.zeros(3)}, r"axis 0 of 'w' \(\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(state, message):
    with pytest.raises(CheckpointError, match=message):
        Permutation(((GROUP, ORDER),)).apply(state)


def test_json_round_trip():
    spec = transformer_spec()
    drawn = Permutation.random(spec, torch.Generator().manual_seed(4))
    both = drawn.compose(Permutation.random(spec, torch.Generator().manual_seed(5)))
    back = Permutation.from_json(spec, json.loads(json.dumps(both.to_json())))
    assert [group for group, _ in back.steps] == [group for group, _ in both.steps]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(back.steps, both.steps, strict=True))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"group": "g"}, "must be a list of steps"),
        (["g"], "step 0: must be"),
        ([{"group": "g", "order": [0, 1, 2], "more": 1}], "step 0: must be"),
        ([{"group": "h", "order": [0, 1, 2]}], "'h' is no group"),
        ([{"group": ["g"], "order": [0, 1, 2]}], "is no group"),
        ([{"group": "g", "order": "012"}], "list of whole numbers"),
        ([{"group": "g", "order": [0, 1.0, 2]}], "list of whole numbers"),
        ([{"group": "g", "order": [0, True, 2]}], "list of whole numbers"),
        ([{"group": "g", "order": [0, 1]}], "each of the numbers 0 to 3 - 1 once"),
        (
            [{"group": "g", "order": [0, 1, 2]}, {"group": "g", "order": [0, 1, 10**30]}],
            "step 1: group 'g'",
        ),
    ],
)
def test_stored_permutations_are_checked(data, message):
    with pytest.raises(CheckpointError, match=message):
        Permutation.from_json(SPEC, data)


def test_displacement_counts_the_units_that_moved():
    permutation = Permutation(((GROUP, torch.tensor([0, 2, 1])),))
    assert permutation.displacement() == {"g": pytest.approx(2 / 3)}
    assert Permutation.identity(SPEC).displacement() == {"g": 0.0}
    assert permutation.compose(permutation).displacement() == {"g": 0.0}
    turn = Permutation(((GROUP, ORDER),))
    assert turn.compose(turn).displacement() == {"g": 1.0}
    assert turn.compose(turn).compose(turn).displacement() == {"g": 0.0}


def test_units_must_fit_their_axis():
    with pytest.raises(ValueError, match="2 units of 2 from 1 on do not fit 4"):
        axis_order(4, 1, 2, torch.tensor([0, 1]))
