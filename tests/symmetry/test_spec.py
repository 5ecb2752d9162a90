from dataclasses import replace

import pytest

from sslpurify.symmetry.spec import (
    Fixed,
    Group,
    Linear,
    PermutationSpec,
    Probe,
    Touch,
    View,
    fixed_axes,
)

SHAPES = {"a.weight": (6, 3), "a.bias": (6,), "b.weight": (2, 6), "scale": (), "one": (1,)}
HIDDEN = Group(
    "hidden",
    6,
    (Touch("a.weight", 0), Touch("a.bias", 0), Touch("b.weight", 1)),
    (View(Probe("b")),),
    "inner",
)
SPEC = PermutationSpec((HIDDEN,), (Fixed("a.weight", 1), Fixed("b.weight", 0)))


def with_group(**changes: object) -> PermutationSpec:
    return replace(SPEC, groups=(replace(HIDDEN, **changes),))


def test_a_complete_specification_has_no_problems():
    assert SPEC.problems(SHAPES) == []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (with_group(touches=HIDDEN.touches[1:]), ["axis 0 of 'a.weight'", "neither"]),
        (replace(SPEC, fixed=SPEC.fixed[1:]), ["axis 1 of 'a.weight'", "neither"]),
        (replace(SPEC, fixed=(*SPEC.fixed, Fixed("a.bias", 0))), ["'a.bias'", "as well"]),
        (replace(SPEC, fixed=(*SPEC.fixed, Fixed("c", 0))), ["'c'", "does not exist"]),
        (replace(SPEC, fixed=(*SPEC.fixed, Fixed("a.bias", 1))), ["'a.bias'", "does not exist"]),
        (with_group(size=5), ["neither"]),
        (with_group(size=7), ["'hidden'", "7 units", "6 positions"]),
        (with_group(touches=(*HIDDEN.touches, Touch("c", 0))), ["no tensor 'c'"]),
        (with_group(touches=(*HIDDEN.touches, Touch("a.bias", 1))), ["has no axis 1"]),
        (with_group(touches=(*HIDDEN.touches, Touch("a.bias", -1))), ["has no axis -1"]),
        (with_group(touches=(*HIDDEN.touches, HIDDEN.touches[0])), ["twice"]),
        (with_group(size=3, touches=(Touch("a.bias", 0, 3, 2),)), ["3 units of 2 from 3"]),
        (with_group(touches=()), ["'hidden'", "a touch"]),
        (with_group(probes=()), ["a probe"]),
        (with_group(touches=(Touch("a.weight", 0, select=(0, 0, 1)),)), ["no other axis"]),
        (with_group(touches=(Touch("a.weight", 0, select=(1, 2, 4)),)), ["outside axis 1"]),
        (with_group(touches=(Touch("a.weight", 0, select=(1, 0, 2)),)), ["neither"]),
        (with_group(probes=(View(Probe("b", linear=Linear("c", None, 0, 6))),)), ["rows"]),
        (
            with_group(probes=(View(Probe("b", linear=Linear("a.weight", "b.weight", 0, 6))),)),
            ["bias 'b.weight'"],
        ),
        (
            with_group(probes=(View(Probe("b", linear=Linear("a.weight", "a.bias", 0, 5))),)),
            ["5 rows"],
        ),
        (replace(SPEC, groups=(HIDDEN, HIDDEN)), ["two groups are called 'hidden'"]),
    ],
)
def test_every_problem_is_named(spec, words):
    problems = "\n".join(spec.problems(SHAPES))
    for word in words:
        assert word in problems


def test_all_problems_are_told_at_once():
    spec = with_group(touches=(Touch("a.weight", 0), Touch("c", 0), Touch("a.bias", 3)))
    assert len(spec.problems(SHAPES)) == 2


def test_selected_halves_of_an_axis_make_a_whole():
    halves = (Touch("b.weight", 1, select=(0, 0, 1)), Touch("b.weight", 1, select=(0, 1, 2)))
    spec = with_group(touches=(*HIDDEN.touches[:2], *halves))
    assert spec.problems(SHAPES) == []
    missing = with_group(touches=(*HIDDEN.touches[:2], halves[0]))
    assert any("axis 1 of 'b.weight'" in problem for problem in missing.problems(SHAPES))


def test_selecting_kinds_leaves_a_complete_specification():
    stream = Group("stream", 3, (Touch("a.weight", 1),), (View(Probe("a")),), "residual")
    spec = PermutationSpec((HIDDEN, stream), (Fixed("b.weight", 0),))
    assert spec.problems(SHAPES) == []
    inner = spec.select({"inner"})
    assert inner.groups == (HIDDEN,)
    assert inner.problems(SHAPES) == []
    assert inner == PermutationSpec((HIDDEN,), (Fixed("b.weight", 0), Fixed("a.weight", 1)))
    assert spec.select(set()).problems(SHAPES) == []


def test_leaving_out_tensors_leaves_a_complete_specification():
    stream = Group("stream", 3, (Touch("a.weight", 1),), (View(Probe("a")),), "residual")
    spec = PermutationSpec((HIDDEN, stream), (Fixed("b.weight", 0),))
    assert spec.outside(["c"]) == spec
    assert spec.outside(["a.weigh"]) == spec
    assert spec.outside(["b"]).groups == spec.outside(["b.weight"]).groups == (stream,)
    assert spec.outside(["b"]).problems(SHAPES) == []
    assert spec.outside(["a"]).groups == ()
    assert spec.outside(["a", "b"]).problems(SHAPES) == []


def test_a_head_is_fixed_by_its_shapes():
    assert fixed_axes({"w": (4, 1, 2), "b": (4,), "s": ()}) == (
        Fixed("w", 0),
        Fixed("w", 2),
        Fixed("b", 0),
    )
