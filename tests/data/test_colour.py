import itertools

import pytest
import torch
from scipy import ndimage
from torchvision.transforms import functional as vision

from sslpurify.data.colour import blur, grey, jitter_, turn_hue_

ORDERS = list(itertools.permutations(range(4)))


def colours(count: int, height: int = 6, width: int = 7) -> torch.Tensor:
    """Random colours, with the corners of the colour cube and greys among them."""
    images = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))
    corners = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3))).T
    images[:, :, 0, :4], images[:, :, 1, :4] = corners[:, :4], corners[:, 4:]
    images[:, :, 2] = images[:, :1, 2]
    images[:, 1, 3] = images[:, 0, 3]
    return images


def reference(image: torch.Tensor, order: list[int], amounts: list[float]) -> torch.Tensor:
    changes = [
        vision.adjust_brightness,
        vision.adjust_contrast,
        vision.adjust_saturation,
        vision.adjust_hue,
    ]
    for kind in order:
        image = changes[kind](image, amounts[kind])
    return image


def test_jitter_is_torchvisions_in_every_order():
    images = colours(3 * len(ORDERS))
    order = torch.tensor(ORDERS).repeat(3, 1)
    generator = torch.Generator().manual_seed(1)
    amounts = 0.2 + 1.6 * torch.rand(len(images), 4, generator=generator, dtype=torch.float64)
    amounts[:, 3] = amounts[:, 3] / 1.8 - 0.6  # turns of hue in [-0.49, 0.4]
    rows = torch.randperm(len(images), generator=generator)[:60]
    changed = images.clone()
    jitter_(changed, rows, order[rows], amounts[rows])
    for i in rows.tolist():
        images[i] = reference(images[i], order[i].tolist(), amounts[i].tolist())
    # torchvision's weights of grey are rounded to four digits: 0.2989 for 0.299
    torch.testing.assert_close(changed, images, rtol=0, atol=1e-3)


def test_jitter_does_not_depend_on_how_images_are_cut_into_pieces(monkeypatch):
    images, rows = colours(24), torch.arange(24)
    amounts = torch.tensor([1.2, 0.7, 1.4, 0.08]).expand(24, 4)
    results = []
    for pixels in (1, 100, 10**6):
        monkeypatch.setattr("sslpurify.data.colour._CACHED_PIXELS", pixels)
        results.append(images.clone())
        jitter_(results[-1], rows, torch.tensor(ORDERS), amounts)
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=1e-6)


def test_hue_is_torchvisions():
    images, turns = colours(41), torch.linspace(-0.5, 0.5, 41)
    turned = images.clone()
    turn_hue_(turned, turns)
    for image, result, turn in zip(images, turned, turns.tolist(), strict=True):
        torch.testing.assert_close(result, vision.adjust_hue(image, turn), rtol=0, atol=1e-5)


def test_grey_is_torchvisions_and_keeps_white():
    images = colours(4)
    expected = vision.rgb_to_grayscale(images)
    torch.testing.assert_close(grey(images), expected, rtol=0, atol=2e-4)
    white = torch.ones(1, 3, 2, 2)
    torch.testing.assert_close(grey(white), white[:, :1])


@pytest.mark.parametrize("shape", [(6, 7), (40, 33)])
def test_blur_is_scipys_gaussian(shape: tuple[int, int]):
    images = colours(5, *shape)
    sigma = torch.tensor([0.1, 0.5, 1.0, 1.7, 2.0], dtype=torch.float64)
    blurred = blur(images, sigma)
    for image, result, s in zip(images, blurred, sigma.tolist(), strict=True):
        expected = ndimage.gaussian_filter(image.numpy(), s, mode="nearest", radius=6, axes=(1, 2))
        torch.testing.assert_close(result, torch.from_numpy(expected), rtol=0, atol=1e-5)
