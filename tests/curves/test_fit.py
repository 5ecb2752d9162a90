import pytest
import torch
from lightly.loss import NTXentLoss
from torch import nn
from torch.func import functional_call

from sslpurify.compute import PLAIN, Compute
from sslpurify.curves import (
    Batch,
    BezierCurve,
    Schedule,
    backward,
    basis,
    fit_bend,
    midpoint_bend,
)
from sslpurify.curves.fit import hand_over, put
from sslpurify.encoders import Output
from sslpurify.errors import TrainingError
from sslpurify.rng import generator
from sslpurify.statedict import digest
from tests import pico

STEPS = 5
SCHEDULE = Schedule(STEPS, images=8, learning_rate=1e-2, stage="curve")
DECAY = 1e-2
CRITERION = NTXentLoss(temperature=0.5)


def images(step: int, count: int = 8) -> torch.Tensor:
    shape = (2 * count, 3, pico.SIZE, pico.SIZE)
    return torch.rand(shape, generator=generator(0, "images", step), dtype=torch.float64)


def contrasted(outputs: Output) -> torch.Tensor:
    """NT-Xent in whatever precision the network has."""
    first, second = outputs.projection.chunk(2)
    return CRITERION(first, second)


def objective(step: int) -> Batch:
    return Batch([lambda: images(step)], contrasted)


def in_float32(step: int) -> Batch:
    return Batch([lambda: images(step).float()], contrasted)


def scratch() -> nn.Module:
    return pico.encoder().fresh(9).double().train()


@pytest.fixture
def ends() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    return pico.state(1), pico.state(2)


def reference_point(network: nn.Module, curve: BezierCurve, t: float, step: int, decay: float):
    """The loss of the slow way: automatic differentiation through the curve itself."""
    point = curve.at(t)
    loss = contrasted(functional_call(network, point, (images(step),)))
    return loss + decay / 2 * sum(p.square().sum() for p in point.values())


def trained_names(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_parameters()]


def as_double(state, names):
    return {name: state[name].double() for name in names}


@pytest.mark.parametrize("decay", [0.0, DECAY])
@pytest.mark.parametrize("t", [0.03, 0.37, 0.9])
def test_the_gradient_is_that_of_autograd_through_the_curve(ends, t, decay):
    network = scratch()
    names = trained_names(network)
    start, end = (as_double(state, names) for state in ends)
    bend = {name: t.requires_grad_() for name, t in as_double(pico.state(3), names).items()}
    curve = BezierCurve(start, bend, end)
    reference_point(network, curve, t, 0, decay).backward()
    expected = {name: tensor.grad.clone() for name, tensor in bend.items()}

    live = dict(network.named_parameters())
    put(live, curve, t)
    backward(network, objective(0), PLAIN)
    hand_over(live, bend, t, decay)
    largest = max(gradient.abs().max() for gradient in expected.values())
    assert largest > 1e-3
    for name, gradient in expected.items():
        assert (bend[name].grad - gradient).abs().max() <= 1e-12 * largest, name


def test_training_is_that_of_the_slow_way(ends):
    """Bend, draws of t, weight decay, Adam and cosine, against an independent loop in float64."""
    network = scratch()
    names = trained_names(network)
    start, end = (as_double(state, names) for state in ends)
    bend = {name: ((start[name] + end[name]) / 2).requires_grad_() for name in names}
    optimizer = torch.optim.Adam(bend.values(), SCHEDULE.learning_rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
    for step in range(STEPS):
        t = float(torch.rand((), generator=generator(4, "curve", "t", step)))
        optimizer.zero_grad()
        reference_point(network, BezierCurve(start, bend, end), t, step, DECAY).backward()
        optimizer.step()
        cosine.step()

    curve, _ = fit_bend(scratch(), *ends, objective, SCHEDULE, seed=4, weight_decay=DECAY)
    for name, expected in bend.items():
        difference = (curve.bend[name] - expected).abs().max()
        assert difference < 1e-8, (name, difference)


def test_only_the_bend_is_trained_and_no_state_is_changed(ends):
    start, end = ends
    before = digest(start), digest(end)
    curve, _ = fit_bend(scratch(), start, end, objective, SCHEDULE, seed=0)
    assert (digest(start), digest(end)) == before
    names = trained_names(scratch())
    assert list(curve.bend) == names
    assert digest(curve.start) == digest({name: start[name] for name in names})
    assert digest(curve.end) == digest({name: end[name] for name in names})
    middle = midpoint_bend(curve.start, curve.end)
    assert all((curve.bend[name] - middle[name]).abs().max() > 1e-6 for name in names)
    assert not any(tensor.requires_grad for tensor in curve.bend.values())


def test_buffers_are_no_part_of_the_curve(ends):
    curve, _ = fit_bend(scratch(), *ends, objective, SCHEDULE, seed=0)
    assert not [name for name in curve.bend if "running" in name or "num_batches" in name]


def test_the_same_seed_gives_the_same_bend(ends):
    one, two, other = (
        digest(fit_bend(scratch(), *ends, objective, SCHEDULE, seed=seed)[0].bend)
        for seed in (0, 0, 1)
    )
    assert one == two != other


def test_training_lowers_the_loss(ends):
    """On one batch, over and over."""
    schedule = Schedule(10, images=8, learning_rate=1e-2, stage="curve")
    network = pico.encoder().fresh(0).train()
    _, (first, last) = fit_bend(network, *ends, lambda _: in_float32(0), schedule, seed=0)
    assert last < first


class Scalar(nn.Module):
    """A network that is its position on the curve from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(7.0))

    def forward(self, factor: torch.Tensor) -> torch.Tensor:
        return self.weight * factor


def positions(steps: int, seed: int = 0, stage: str = "curve") -> list[float]:
    """The t of every step, read off a bend that a learning rate of nothing leaves in the middle."""
    seen: list[float] = []

    def observe(step: int) -> Batch:
        def loss(weight: torch.Tensor) -> torch.Tensor:
            assert step == len(seen)
            seen.append(float(weight.detach()))
            return weight.square()

        return Batch([lambda: torch.ones(())], loss)

    start, end = {"weight": torch.tensor(0.0)}, {"weight": torch.tensor(1.0)}
    schedule = Schedule(steps, 1, 1e-12, stage)
    fit_bend(Scalar(), start, end, observe, schedule, seed=seed)
    return seen


def test_t_is_a_function_of_seed_stage_and_step_alone():
    torch.manual_seed(5)
    long, short = positions(6), positions(3)
    assert long[:3] == short
    torch.manual_seed(6)
    assert positions(6) == long
    assert positions(6, seed=1) != long
    assert positions(6, stage="other") != long


def test_t_is_uniform():
    drawn = torch.tensor(positions(300)).sort().values
    even = (torch.arange(300) + 0.5) / 300
    assert (drawn - even).abs().max() < 0.1  # Kolmogorov-Smirnov: 0.09 at the 1 % level
    assert len(set(drawn.tolist())) == 300


def test_a_loss_that_is_not_finite_ends_the_training():
    start, end = {"weight": torch.tensor(0.0)}, {"weight": torch.tensor(1.0)}
    with pytest.raises(TrainingError, match="curve: the loss is nan at step 3 of 5"):
        fit_bend(
            Scalar(),
            start,
            end,
            lambda step: Batch(
                [lambda: torch.ones(())],
                lambda weight: weight * (float("nan") if step == 2 else 1.0),
            ),
            SCHEDULE,
            seed=0,
        )


def test_frozen_parameters_stay_out_of_the_curve(ends):
    network = scratch()
    network.projection_head.requires_grad_(False)
    before = digest(network.projection_head.state_dict())
    network.projection_head.eval()
    curve, _ = fit_bend(network, *ends, objective, SCHEDULE, seed=0, weight_decay=DECAY)
    assert curve.bend
    assert all(name.startswith("backbone.") for name in curve.bend)
    assert digest(network.projection_head.state_dict()) == before


def test_tied_weights_are_trained_once():
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    network[1].weight = network[0].weight
    start = {"0.weight": torch.zeros(3, 3), "1.weight": torch.zeros(3, 3)}
    end = {"0.weight": torch.eye(3), "1.weight": torch.eye(3)}
    batch = Batch([lambda: torch.ones(2, 3)], torch.sum)
    curve, _ = fit_bend(network, start, end, lambda _: batch, SCHEDULE, seed=0)
    assert list(curve.bend) == ["0.weight"]


def test_a_state_of_another_network_is_refused(ends):
    start, end = ends
    del end["backbone.conv1.weight"]
    with pytest.raises(ValueError, match=r"backbone\.conv1\.weight"):
        fit_bend(scratch(), start, end, objective, SCHEDULE, seed=0)


def test_bf16_trains_float32_weights(ends):
    compute = Compute(bf16=True)
    network = compute.place(pico.encoder().fresh(0)).train()
    curve, loss = fit_bend(network, *ends, in_float32, SCHEDULE, seed=0, compute=compute)
    _, exact = fit_bend(scratch(), *ends, objective, SCHEDULE, seed=0)
    assert {tensor.dtype for tensor in curve.bend.values()} == {torch.float32}
    assert all(tensor.is_contiguous() for tensor in curve.bend.values())
    assert loss == pytest.approx(exact, rel=0.05)
    assert loss != pytest.approx(exact, rel=1e-5)


def test_the_listener_is_told_every_step(ends):
    told = []
    _, (first, last) = fit_bend(scratch(), *ends, objective, SCHEDULE, seed=0, listener=told.append)
    assert [(step.stage, step.step, step.steps, step.images) for step in told] == [
        ("curve", number, STEPS, 8) for number in range(1, STEPS + 1)
    ]
    assert (first, last) == (told[0].loss, told[-1].loss)


def test_the_loss_is_that_of_the_point_at_t(ends):
    """Without the weight decay, which is no part of what is reported."""
    told = []
    fit_bend(
        scratch(), *ends, objective, SCHEDULE, seed=0, weight_decay=DECAY, listener=told.append
    )
    network = scratch()
    names = trained_names(network)
    start, end = (as_double(state, names) for state in ends)
    t = float(torch.rand((), generator=generator(0, "curve", "t", 0)))
    curve = BezierCurve(start, midpoint_bend(start, end), end)
    assert basis(t)[1] > 0
    expected = float(reference_point(network, curve, t, 0, 0.0))
    assert told[0].loss == pytest.approx(expected, rel=1e-12)
