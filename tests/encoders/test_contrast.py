import pytest
import torch

from sslpurify.compute import CPU
from sslpurify.data import ViewSettings, from_pixels
from sslpurify.encoders import Contrast, Output
from sslpurify.errors import DataError
from sslpurify.losses import nt_xent
from tests import pico

# Images of one colour each, and views that change nothing: a view says which image it is of.
COUNT = 10
PLAIN_VIEWS = ViewSettings(
    min_scale=1, min_ratio=1, max_ratio=1, jitter_probability=0, grey_probability=0
)
PIXELS = torch.arange(COUNT, dtype=torch.uint8).mul(20).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)


def contrast(batch_size: int = 4, seed: int = 0, views: ViewSettings = PLAIN_VIEWS) -> Contrast:
    return Contrast(from_pixels(PIXELS), views, batch_size, 0.5, seed, CPU)


class Recorder(torch.nn.Module):
    """A network that remembers its images and projects them onto two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor):
        self.seen.append(images)
        values = images.flatten(1)[:, :2] + torch.tensor([0.1, -0.2])
        return Output(values, values)


def shown(objective, step: int) -> torch.Tensor:
    network = Recorder()
    objective(network, step)
    (views,) = network.seen
    return views


def numbers(views: torch.Tensor) -> list[int]:
    return (views[:, 0, 0, 0] * 255 / 20).round().int().tolist()


def test_a_step_sees_every_image_in_two_views():
    first, second = shown(contrast().objective("curve"), 0).chunk(2)
    assert numbers(first) == numbers(second)
    assert len(set(numbers(first))) == 4


def test_an_epoch_sees_no_image_twice_and_the_next_is_in_another_order():
    objective = contrast().objective("curve")
    assert contrast().steps_per_epoch == 2
    epochs = [
        [number for step in steps for number in numbers(shown(objective, step).chunk(2)[0])]
        for steps in ((0, 1), (2, 3), (4, 5))
    ]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_step_is_a_function_of_seed_stage_and_step_alone():
    views = ViewSettings()
    one = contrast(views=views).objective("curve")
    forward = [shown(one, step) for step in range(5)]
    backward = [shown(contrast(views=views).objective("curve"), step) for step in (4, 1, 3, 0)]
    for step, seen in zip((4, 1, 3, 0), backward, strict=True):
        assert torch.equal(seen, forward[step])
    assert not torch.equal(shown(contrast(views=views).objective("other"), 0), forward[0])
    assert not torch.equal(shown(contrast(seed=1, views=views).objective("curve"), 0), forward[0])
    assert not torch.equal(forward[0][:4], forward[0][4:])


def test_the_objective_is_nt_xent_of_the_two_views():
    objective = contrast().objective("curve")
    first, second = Recorder()(shown(objective, 1)).projection.chunk(2)
    assert torch.equal(objective(Recorder(), 1), nt_xent(0.5)(first, second))


def test_some_are_always_the_same_ones():
    chosen = contrast().some(6)
    assert len(chosen) == 6
    assert torch.equal(chosen.pixels, contrast(batch_size=2).some(6).pixels)
    assert not torch.equal(chosen.pixels, contrast(seed=1).some(6).pixels)
    smaller = {int(value) for value in contrast().some(3).pixels[:, 0, 0, 0]}
    assert smaller < {int(value) for value in chosen.pixels[:, 0, 0, 0]}
    assert torch.equal(contrast().some(99).pixels, PIXELS)


@pytest.mark.parametrize(("count", "sizes"), [(10, [8, 6, 6]), (4, [8]), (5, [6, 4])])
def test_statistics_come_from_two_views_of_every_chosen_image(count, sizes):
    batches = list(contrast().statistics(count))
    assert [len(batch) for batch in batches] == sizes
    seen = [number for batch in batches for number in numbers(batch)]
    wanted = numbers(contrast().some(count).pixels / 255)
    assert sorted(seen) == sorted(2 * wanted)


def test_statistics_are_drawn_alike_every_time():
    one, two = (torch.cat([*contrast(views=ViewSettings()).statistics(10)]) for _ in range(2))
    assert torch.equal(one, two)


def test_the_loss_of_a_network():
    network = Recorder()
    value = contrast().loss(network, 7)
    first, second = network.seen
    assert numbers(first) == numbers(second) == numbers(contrast().some(7).pixels / 255)
    expected = nt_xent(0.5)(*(Recorder()(view).projection for view in (first, second)))
    assert value == float(expected)


def test_too_few_images_for_one_batch():
    with pytest.raises(DataError, match="10 clean images are too few: a batch takes 11"):
        contrast(batch_size=11)


def test_a_real_network_takes_a_step():
    images = torch.randint(0, 256, (8, 3, pico.SIZE, pico.SIZE), dtype=torch.uint8)
    draws = Contrast(from_pixels(images), ViewSettings(), 8, 0.5, 0, CPU)
    network = pico.encoder().fresh(0).train()
    loss = draws.objective("curve")(network, 0)
    loss.backward()
    assert loss.isfinite()
    assert network.backbone.conv1.weight.grad.abs().max() > 0
