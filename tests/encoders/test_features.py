import pytest
import torch
from torch import nn

from sslpurify.data import from_pixels
from sslpurify.encoders import Network, embed
from sslpurify.errors import TrainingError
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


class Small(nn.Module):
    """A backbone on a device that holds so many images at once, with the error that says so."""

    def __init__(self, backbone: nn.Module, room: int, error: BaseException) -> None:
        super().__init__()
        self.backbone, self.room, self.error = backbone, room, error
        self.seen: list[int] = []

    def forward(self, images: torch.Tensor):
        self.seen.append(len(images))
        if len(images) > self.room:
            raise self.error
        return self.backbone(images)


def small(room: int, error: BaseException) -> tuple[Network, list[int]]:
    """A network with such a backbone, and how many images it was shown each time."""
    network = pico.encoder().load(pico.state())
    network.backbone = backbone = Small(network.backbone, room, error)
    return network, backbone.seen


EXHAUSTED = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", EXHAUSTED, ids=lambda error: type(error).__name__)
def test_exhausted_memory_halves_the_batch_once_and_for_all(expected, error):
    (network, seen), told = small(3, error), []
    result = embed(network, IMAGES, batch_size=8, listener=told.append)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6)
    assert seen == [8, 4, 2, 2, 2, 2, 2, 1]
    assert [(step.step, step.steps, step.images) for step in told] == [(1, 2, 8), (2, 2, 3)]


def test_memory_for_no_image_at_all_is_told_with_advice():
    network, seen = small(0, EXHAUSTED[0])
    with pytest.raises(TrainingError, match=r"single image \(CUDA out of memory.*--device cpu"):
        embed(network, IMAGES, batch_size=4)
    assert seen == [4, 2, 1]


def test_other_errors_are_no_matter_of_memory():
    network, seen = small(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        embed(network, IMAGES, batch_size=4)
    assert seen == [4]
