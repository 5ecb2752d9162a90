"""Law 5: the basis is convex, the ends are the endpoints, and gradient reaches the bend only."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sslpurify.curves import BezierCurve, basis
from sslpurify.curves.fit import hand_over, put
from sslpurify.statedict import digest, identical
from tests import pico

POSITIONS = st.floats(0, 1)
SEEDS = st.integers(0, 2**32)


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator)
        for name, shape in pico.encoder().shapes.items()
    }


@given(t=POSITIONS)
def test_the_basis_is_convex(t):
    weights = basis(t)
    assert all(weight >= 0 for weight in weights)
    assert math.isclose(sum(weights), 1, rel_tol=1e-15)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_the_ends_are_the_endpoints(seed):
    """Bit for bit: a weighted sum would turn -0 into 0, and make NaN of a bend that is infinite."""
    start, bend, end = (weights(seed + number) for number in range(3))
    start["conv1.weight"][0], end["conv1.weight"][0] = -0.0, -0.0
    bend["bn1.weight"][0] = float("inf")
    curve = BezierCurve(start, bend, end)
    for point, wanted in ((curve.at(0.0), start), (curve.at(1.0), end)):
        assert all(identical(point[name], tensor) for name, tensor in wanted.items())


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, t=POSITIONS)
def test_every_point_lies_between_the_control_points(seed, t):
    control = [weights(seed + number) for number in range(3)]
    for name, tensor in BezierCurve(*control).at(t).items():
        values = torch.stack([state[name] for state in control])
        assert (tensor >= values.amin(0) - 1e-5).all()
        assert (tensor <= values.amax(0) + 1e-5).all()


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, t=POSITIONS, decay=st.floats(0, 1))
def test_gradient_reaches_the_bend_only_and_in_its_share(seed, t, decay):
    """On a loss whose gradient is known: half the squared distance to a target."""
    generator = torch.Generator().manual_seed(seed)
    start, bend, end, target = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    live = {"w": nn.Parameter(torch.zeros(5, dtype=torch.float64))}
    curve = BezierCurve({"w": start}, {"w": bend}, {"w": end})
    before = [digest(state) for state in (curve.start, curve.bend, curve.end)]
    put(live, curve, t)
    ((live["w"] - target).square().sum() / 2).backward()
    hand_over(live, {"w": bend}, t, decay)
    point = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    expected = 2 * t * (1 - t) * (point - target + decay * point)
    torch.testing.assert_close(bend.grad, expected, rtol=1e-12, atol=1e-12)
    assert start.grad is None
    assert end.grad is None
    assert [digest(state) for state in (curve.start, curve.bend, curve.end)] == before
