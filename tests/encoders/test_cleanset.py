import pytest
import torch
from torch import nn

from sslpurify.compute import PLAIN
from sslpurify.curves import backward
from sslpurify.data import ViewSettings, from_pixels
from sslpurify.encoders import CleanSet, Guide, Output, by_views
from sslpurify.errors import DataError
from sslpurify.losses import nt_xent
from tests import pico

# Images of one colour each, and views that change nothing: a view says which image it is of.
COUNT = 10
PLAIN_VIEWS = ViewSettings(
    min_scale=1, min_ratio=1, max_ratio=1, jitter_probability=0, grey_probability=0
)
PIXELS = torch.arange(COUNT, dtype=torch.uint8).mul(20).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
TWO_VIEWS = by_views(0.5)


def clean(
    batch_size: int = 4,
    seed: int = 0,
    views: ViewSettings = PLAIN_VIEWS,
    micro_batch: int | None = None,
    guide: Guide = TWO_VIEWS,
) -> CleanSet:
    return CleanSet(from_pixels(PIXELS), guide, views, batch_size, micro_batch, seed, PLAIN)


class Recorder(nn.Module):
    """A network that remembers its images and projects them onto two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor):
        self.seen.append(images)
        values = images.flatten(1)[:, :2] + torch.tensor([0.1, -0.2])
        return Output(values, values)


def shown(objective, step: int) -> torch.Tensor:
    (views,) = (images() for images in objective(step).inputs)
    return views


def numbers(views: torch.Tensor) -> list[int]:
    return (views[:, 0, 0, 0] * 255 / 20).round().int().tolist()


def test_a_step_sees_every_image_in_two_views():
    first, second = shown(clean().objective("curve"), 0).chunk(2)
    assert numbers(first) == numbers(second)
    assert len(set(numbers(first))) == 4


def test_an_epoch_sees_no_image_twice_and_the_next_is_in_another_order():
    objective = clean().objective("curve")
    assert clean().steps_per_epoch == 2
    epochs = [
        [number for step in steps for number in numbers(shown(objective, step).chunk(2)[0])]
        for steps in ((0, 1), (2, 3), (4, 5))
    ]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_step_is_a_function_of_seed_stage_and_step_alone():
    views = ViewSettings()
    one = clean(views=views).objective("curve")
    forward = [shown(one, step) for step in range(5)]
    backward = [shown(clean(views=views).objective("curve"), step) for step in (4, 1, 3, 0)]
    for step, seen in zip((4, 1, 3, 0), backward, strict=True):
        assert torch.equal(seen, forward[step])
    assert not torch.equal(shown(clean(views=views).objective("other"), 0), forward[0])
    assert not torch.equal(shown(clean(seed=1, views=views).objective("curve"), 0), forward[0])
    assert not torch.equal(forward[0][:4], forward[0][4:])


def test_a_micro_batch_is_the_same_whenever_it_is_asked_for():
    batch = clean(views=ViewSettings(), micro_batch=2).objective("curve")(0)
    for images in batch.inputs:
        assert torch.equal(images(), images())
    assert not torch.equal(batch.inputs[0](), batch.inputs[1]())


def test_the_objective_is_nt_xent_of_the_two_views():
    batch = clean().objective("curve")(1)
    (images,) = batch.inputs
    output = Recorder()(images())
    first, second = output.projection.chunk(2)
    assert torch.equal(batch.loss(output), nt_xent(0.5)(first, second))


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_micro_batches_take_the_batch_apart_in_its_order(micro_batch):
    whole = numbers(shown(clean().objective("curve"), 3).chunk(2)[0])
    parts = [images() for images in clean(micro_batch=micro_batch).objective("curve")(3).inputs]
    assert [len(part) for part in parts[:-1]] == [2 * micro_batch] * (len(parts) - 1)
    views = zip(*(part.chunk(2) for part in parts), strict=True)
    first, second = (numbers(torch.cat(view)) for view in views)
    assert first == second == whole


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_the_loss_of_micro_batches_is_that_of_the_whole_batch(micro_batch):
    """Every image has all others as negatives, and its own second view as its positive."""
    values = []
    for size in (None, micro_batch):
        batch = clean(micro_batch=size).objective("curve")(0)
        parts = [Recorder()(images()) for images in batch.inputs]
        values.append(batch.loss(Output(*(torch.cat(rows) for rows in zip(*parts, strict=True)))))
    torch.testing.assert_close(*values)


def test_the_guide_is_told_which_images_and_gets_the_same_draws_at_the_same_step():
    told = []

    def loss(outputs, indices, draws):
        told.append((numbers_of(outputs[0]), indices.tolist(), torch.rand(2, generator=draws)))
        return outputs[0].embedding.sum()

    def numbers_of(output: Output) -> list[int]:
        return ((output.embedding[:, 0] - 0.1) * 255 / 20).round().int().tolist()

    for micro_batch, step in ((None, 0), (3, 0), (None, 1)):
        given = clean(micro_batch=micro_batch, guide=Guide(1, loss)).objective("curve")(step)
        parts = [Recorder()(images()) for images in given.inputs]
        assert sum(map(len, (part.embedding for part in parts))) == 4
        given.loss(Output(*(torch.cat(rows) for rows in zip(*parts, strict=True))))
    assert all(seen == indices for seen, indices, _ in told)
    assert torch.equal(told[0][2], told[1][2])
    assert not torch.equal(told[0][2], told[2][2])


def test_the_gradient_of_micro_batches_is_that_of_the_whole_batch():
    torch.manual_seed(0)
    network = Projector()
    losses, gradients = [], []
    for micro_batch in (None, 1, 3):
        batch = clean(micro_batch=micro_batch).objective("curve")(0)
        losses.append(backward(network, batch, PLAIN))
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-5)
    assert max(float(gradient.abs().max()) for gradient in gradients[0]) > 1e-3
    for other in gradients[1:]:
        for gradient, expected in zip(other, gradients[0], strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)


class Projector(nn.Module):
    """No BatchNorm: what it makes of an image depends on that image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Tanh())
        self.head = nn.Linear(6, 5)

    def forward(self, images: torch.Tensor):
        embedding = self.backbone(images)
        return Output(embedding, self.head(embedding))


def test_some_are_always_the_same_ones():
    chosen = clean().some(6)
    assert len(chosen) == 6
    assert torch.equal(chosen.pixels, clean(batch_size=2).some(6).pixels)
    assert not torch.equal(chosen.pixels, clean(seed=1).some(6).pixels)
    smaller = {int(value) for value in clean().some(3).pixels[:, 0, 0, 0]}
    assert smaller < {int(value) for value in chosen.pixels[:, 0, 0, 0]}
    assert torch.equal(clean().some(99).pixels, PIXELS)


@pytest.mark.parametrize(
    ("count", "micro_batch", "sizes"),
    [(10, None, [8, 6, 6]), (4, None, [8]), (5, None, [6, 4]), (5, 2, [4, 4, 2])],
)
def test_statistics_come_from_two_views_of_every_chosen_image(count, micro_batch, sizes):
    batches = list(clean(micro_batch=micro_batch).statistics(count))
    assert [len(batch) for batch in batches] == sizes
    seen = [number for batch in batches for number in numbers(batch)]
    wanted = numbers(clean().some(count).pixels / 255)
    assert sorted(seen) == sorted(2 * wanted)


def test_statistics_are_drawn_alike_every_time():
    one, two = (torch.cat([*clean(views=ViewSettings()).statistics(10)]) for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_the_loss_of_a_network(micro_batch):
    network = Recorder()
    value = clean(micro_batch=micro_batch).loss(network, 7)
    views = [images.chunk(2) for images in network.seen]
    first, second = (torch.cat(view) for view in zip(*views, strict=True))
    assert numbers(first) == numbers(second) == numbers(clean().some(7).pixels / 255)
    expected = nt_xent(0.5)(*(Recorder()(view).projection for view in (first, second)))
    assert value == float(expected)


def test_too_few_images_for_one_batch():
    with pytest.raises(DataError, match="10 clean images are too few: a batch takes 11"):
        clean(batch_size=11)


def test_a_real_network_takes_a_step():
    images = torch.randint(0, 256, (8, 3, pico.SIZE, pico.SIZE), dtype=torch.uint8)
    draws = CleanSet(from_pixels(images), TWO_VIEWS, ViewSettings(), 8, None, 0, PLAIN)
    network = pico.encoder().fresh(0).train()
    assert backward(network, draws.objective("curve")(0), PLAIN) > 0
    assert network.backbone.conv1.weight.grad.abs().max() > 0
