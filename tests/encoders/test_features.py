import pytest
import torch

from sslpurify.data import from_pixels
from sslpurify.encoders import embed
from tests import pico

PIXELS = torch.randint(
    0, 256, (11, 3, pico.SIZE, pico.SIZE), generator=torch.Generator().manual_seed(0)
).to(torch.uint8)
IMAGES = from_pixels(PIXELS)


@pytest.fixture(scope="module")
def network():
    return pico.encoder().load(pico.state())


@pytest.fixture(scope="module")
def expected(network):
    with torch.no_grad():
        return network(PIXELS / 255).embedding


@pytest.mark.parametrize("batch_size", [1, 4, 11, 100])
def test_the_batch_size_changes_nothing(network, expected, batch_size):
    result = embed(network, IMAGES, batch_size=batch_size)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6)
    assert expected.std(0).min() > 1e-4


def test_a_transform_sees_images_before_they_are_normalized(network):
    seen = []

    def invert(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return 1 - images

    result = embed(network, IMAGES, batch_size=4, transform=invert)
    assert torch.equal(torch.cat(seen), PIXELS / 255)
    wanted = embed(network, from_pixels(255 - PIXELS))
    torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-6)


def test_embeddings_are_ordinary_tensors(network):
    result = embed(network, IMAGES)
    assert not result.is_inference()
    assert not result.requires_grad
    result.requires_grad_().sum().backward()


def test_the_listener_is_told_every_batch(network):
    told = []
    embed(network, IMAGES, batch_size=4, listener=told.append, stage="looking")
    assert [(step.stage, step.step, step.steps, step.images) for step in told] == [
        ("looking", 1, 3, 4),
        ("looking", 2, 3, 4),
        ("looking", 3, 3, 3),
    ]
