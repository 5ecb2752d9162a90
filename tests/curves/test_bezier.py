import pytest
import torch

from sslpurify.curves import BezierCurve, basis, midpoint_bend
from sslpurify.statedict import digest


def states(count: int = 3) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "conv.weight": torch.randn(2, 3, 3, 3, generator=generator),
            "norm.bias": torch.randn(2, generator=generator),
        }
        for _ in range(count)
    ]


@pytest.mark.parametrize("t", [-0.1, 1.1, float("nan"), float("inf")])
def test_there_is_no_curve_beyond_its_ends(t):
    with pytest.raises(ValueError, match=r"t must be in \[0, 1\]"):
        basis(t)
    with pytest.raises(ValueError, match=r"t must be in \[0, 1\]"):
        BezierCurve(*states()).at(t)


def test_the_point_is_the_formula():
    start, bend, end = states()
    point = BezierCurve(start, bend, end).at(0.3)
    assert list(point) == list(start)
    for name in start:
        expected = 0.49 * start[name] + 0.42 * bend[name] + 0.09 * end[name]
        torch.testing.assert_close(point[name], expected)


def test_a_point_leaves_the_control_points_alone():
    control = states()
    before = [digest(state) for state in control]
    curve = BezierCurve(*control)
    for t in (0.0, 0.4, 1.0):
        curve.at(t)
    assert [digest(state) for state in control] == before


def test_the_midpoint_bend_makes_a_straight_line():
    start, end = states(2)
    curve = BezierCurve(start, midpoint_bend(start, end), end)
    for t in (0.1, 0.5, 0.8):
        for name, tensor in curve.at(t).items():
            torch.testing.assert_close(tensor, torch.lerp(start[name], end[name], t))


@pytest.mark.parametrize("odd", [1, 2], ids=["bend", "end"])
def test_control_points_of_other_networks_are_refused(odd):
    control = states()
    control[odd]["norm.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"norm\.bias"):
        BezierCurve(*control)
