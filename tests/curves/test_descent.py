import pytest
import torch
from torch import nn

from sslpurify.compute import PLAIN
from sslpurify.curves import Batch, Schedule, backward, descend
from sslpurify.curves.descent import cosine
from sslpurify.encoders import Output
from sslpurify.errors import TrainingError
from sslpurify.types import silent


def walker() -> torch.optim.Optimizer:
    return torch.optim.Adam([torch.zeros((), requires_grad=True)])


def walk(steps: int, losses=lambda _: 1.0, listener=silent):
    """Descends along a constant gradient: Adam's step is then the learning rate itself."""
    weight = torch.zeros((), dtype=torch.float64, requires_grad=True)
    path = [0.0]

    def gradient(step: int) -> float:
        path.append(float(weight.detach()))
        weight.grad = torch.ones((), dtype=torch.float64)
        return losses(step)

    result = descend(
        torch.optim.Adam([weight]), gradient, Schedule(steps, 4, 0.1, "walk"), listener=listener
    )
    return [*path[2:], float(weight.detach())], result


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_the_cosine_ends_with_the_last_step(steps):
    """As torch's own schedule over the real number of steps; it never climbs up again."""
    path, _ = walk(steps)
    rates = [before - after for before, after in zip([0.0, *path], path, strict=False)]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for rate in rates:
        assert rate == pytest.approx(schedule.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr()[0] == pytest.approx(0, abs=1e-12)
    assert rates == sorted(rates, reverse=True)


def test_cosine():
    assert cosine(0, 10) == 1
    assert cosine(5, 10) == pytest.approx(0.5)
    assert cosine(10, 10) == 0


def test_the_mean_losses_are_those_of_the_first_and_last_tenth():
    assert walk(20, float)[1] == (0.5, 18.5)
    assert walk(3, float)[1] == (0, 2)


def test_every_step_is_told():
    told = []
    walk(3, float, told.append)
    assert [(s.stage, s.step, s.steps, s.images, s.loss) for s in told] == [
        ("walk", 1, 3, 4, 0.0),
        ("walk", 2, 3, 4, 1.0),
        ("walk", 3, 3, 4, 2.0),
    ]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_never_follow_a_loss_that_is_not_finite(bad):
    weight = torch.zeros((), requires_grad=True)

    def gradient(step: int) -> float:
        weight.grad = torch.full((), bad if step else 1.0)
        return bad if step else 1.0

    with pytest.raises(TrainingError, match=r"walk: the loss is .* at step 2 of 4"):
        descend(torch.optim.Adam([weight]), gradient, Schedule(4, 1, 0.1, "walk"))
    assert float(weight.detach()) == pytest.approx(-0.1)


def test_gradients_are_given_back():
    weight = torch.zeros((), requires_grad=True)

    def gradient(_: int) -> float:
        assert weight.grad is None
        weight.grad = torch.ones(())
        return 1.0

    descend(torch.optim.Adam([weight]), gradient, Schedule(3, 1, 0.1, "walk"))
    assert weight.grad is None


def test_backward_does_not_add_to_old_gradients():
    network = nn.Linear(2, 1)
    images = torch.ones(3, 2)
    for _ in range(2):
        batch = Batch([lambda: images], lambda outputs: outputs.sum() * 2)
        loss = backward(network, batch, PLAIN)
        assert loss == pytest.approx(2 * float(network(images).sum().detach()))
        assert network.weight.grad.tolist() == [[6.0, 6.0]]


class Two(nn.Module):
    """Two outputs of which a loss may use one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)
        self.double()

    def forward(self, images):
        hidden = self.first(images).tanh()
        return Output(hidden, self.second(hidden))


def apart(output: Output) -> torch.Tensor:
    """Every row against every other: no sum over micro-batches."""
    return (output.projection @ output.projection.T).softmax(1).diagonal().log().mean()


def both(output: Output) -> torch.Tensor:
    return apart(output) + (output.embedding.std(0) * output.projection.std()).sum()


def embedding_only(output: Output) -> torch.Tensor:
    return output.embedding.var(0).sum()


@pytest.mark.parametrize("loss", [apart, both, embedding_only])
@pytest.mark.parametrize("sizes", [[8], [1] * 8, [3, 5], [3, 3, 2]])
def test_micro_batches_have_the_gradient_of_the_batch(loss, sizes):
    images = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    network = Two()
    value = loss(network(images))
    value.backward()
    expected = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    batch = Batch([lambda part=part: part for part in images.split(sizes)], loss)
    assert backward(network, batch, PLAIN) == pytest.approx(float(value.detach()), rel=1e-12)
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-3
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


def test_micro_batches_keep_frozen_parameters_without_gradient():
    network = Two()
    network.first.requires_grad_(False)
    images = torch.ones(4, 4, dtype=torch.float64)
    backward(network, Batch([lambda: images, lambda: 2 * images], apart), PLAIN)
    assert network.first.weight.grad is None
    assert network.second.weight.grad is not None


@pytest.mark.parametrize("when", ["gradient", "optimizer"])
def test_exhausted_memory_ends_training_with_advice_and_the_same_batch(when, monkeypatch):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")
    walked_into(error, when, monkeypatch, r"^walk: .*2\.00 GiB\).*--set tsc\.micro_batch=64")
    walked_into(MemoryError(), when, monkeypatch, r"^walk: .*\(MemoryError\)")


def walked_into(error: BaseException, when: str, monkeypatch, told: str) -> None:
    def exhaust(*_: object) -> float:
        raise error

    if when == "optimizer":
        monkeypatch.setattr(torch.optim.Adam, "step", exhaust)
    gradient = exhaust if when == "gradient" else lambda _: 1.0
    with pytest.raises(TrainingError, match=told):
        descend(walker(), gradient, Schedule(2, 1, 0.1, "walk"))


def test_other_errors_of_training_are_not_explained_away():
    def fail(_: int) -> float:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match=r"^shapes cannot be multiplied"):
        descend(walker(), fail, Schedule(2, 1, 0.1, "walk"))
