"""Every effect against a slow reference written from its paper."""

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from sslpurify.attacks.effects import (
    Add,
    Warp,
    dct_matrix,
    elastic,
    sinusoid,
    spectral,
    yuv_matrix,
)
from sslpurify.attacks.triggers import read_trigger
from sslpurify.errors import DataError
from sslpurify.rng import generator


def images(size, count=2, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_sig_is_barnis_sinusoid_along_the_columns():
    expected = images(16).clone()
    for n, c, row, column in np.ndindex(2, 3, 16, 16):
        wave = 40 * math.sin(2 * math.pi * 6 * (column + 1) / 16)
        expected[n, c, row, column] = min(1.0, max(0.0, expected[n, c, row, column] + wave / 255))
    torch.testing.assert_close(read_trigger("sig", 16)(images(16)), expected)
    torch.testing.assert_close(Add(sinusoid(16, 40.0, 6.0))(images(16)), expected)


def ctrl(image, magnitude, positions):
    """CTRL step by step on one image, HWC from 0 to 255, by scipy's transform."""
    yuv = image @ np.array(
        [
            [0.299, -0.492 * 0.299, 0.877 * 0.701],
            [0.587, -0.492 * 0.587, -0.877 * 0.587],
            [0.114, 0.492 * 0.886, -0.877 * 0.114],
        ]
    )
    for top, left in np.ndindex(image.shape[0] // 32, image.shape[1] // 32):
        window = (slice(32 * top, 32 * top + 32), slice(32 * left, 32 * left + 32))
        for channel in (1, 2):
            coefficients = dctn(yuv[*window, channel], norm="ortho")
            for row, column in positions:
                coefficients[row, column] += magnitude
            yuv[*window, channel] = idctn(coefficients, norm="ortho")
    luma, u, v = yuv[..., 0], yuv[..., 1], yuv[..., 2]
    red, blue = luma + v / 0.877, luma + u / 0.492
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return np.clip(np.stack([red, green, blue], axis=2), 0, 255)


@pytest.mark.parametrize("size", [32, 96])
def test_the_frequency_trigger_is_ctrls_step_by_step(size):
    clean = images(size)
    pixels = clean.double().permute(0, 2, 3, 1).numpy() * 255
    expected = np.stack([ctrl(image, 100, [(15, 15), (31, 31)]) for image in pixels]) / 255
    found = read_trigger("frequency", size)(clean).permute(0, 2, 3, 1)
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), atol=2e-6, rtol=0)


def test_rows_and_columns_of_a_frequency_are_not_mixed_up():
    expected = ctrl(np.full((32, 32, 3), 127.5), 50, [(3, 20)]) / 255
    found = Add(spectral(32, 50.0, [(3, 20)]))(torch.full((1, 3, 32, 32), 0.5))
    torch.testing.assert_close(
        found[0].permute(1, 2, 0), torch.from_numpy(expected).float(), atol=2e-6, rtol=0
    )


def test_dct_and_colours_are_scipys_and_bt_601():
    signal = np.random.default_rng(0).random((32, 32))
    waves = dct_matrix(32)
    torch.testing.assert_close(
        waves @ torch.from_numpy(signal) @ waves.T, torch.from_numpy(dctn(signal, norm="ortho"))
    )
    torch.testing.assert_close(waves @ waves.T, torch.eye(32, dtype=torch.float64))
    assert (yuv_matrix() @ torch.ones(3, dtype=torch.float64)).tolist() == pytest.approx([1, 0, 0])


@pytest.mark.parametrize("size", [8, 28, 48, 100])
def test_frequencies_need_whole_windows(size):
    with pytest.raises(DataError, match=rf"windows of 32 × 32, .* images of {size} × {size}"):
        read_trigger("frequency", size)


def test_the_warp_looks_each_pixel_up_between_its_four_neighbours():
    size, clean = 12, images(12)
    grid = elastic(size, 4, 3.0, 1)
    expected = torch.zeros_like(clean)
    for row, column in np.ndindex(size, size):
        x, y = ((float(v) + 1) / 2 * (size - 1) for v in grid[row, column])
        left, top = min(int(x), size - 2), min(int(y), size - 2)
        for dy, dx in np.ndindex(2, 2):
            weight = (dy * (y - top) + (1 - dy) * (1 - y + top)) * (
                dx * (x - left) + (1 - dx) * (1 - x + left)
            )
            expected[:, :, row, column] += weight * clean[:, :, top + dy, left + dx]
    torch.testing.assert_close(Warp(grid)(clean), expected, atol=1e-5, rtol=0)


def test_the_field_has_mean_size_one_at_its_control_points_and_is_smooth_between():
    k, strength, size = 4, 0.5, 31
    line = torch.linspace(-1, 1, size)
    still = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=2)
    shifts = (elastic(size, k, strength, 0) - still) * size / strength
    control = shifts[:: (size - 1) // (k - 1), :: (size - 1) // (k - 1)]
    assert control.shape == (k, k, 2)
    inner = control[1:-1, 1:-1]  # the border is cut off where it would look outside
    wanted = torch.rand(1, 2, k, k, generator=generator(0, "trigger warp", k)) * 2 - 1
    wanted = (wanted / wanted.abs().mean())[0].permute(1, 2, 0)
    torch.testing.assert_close(inner, wanted[1:-1, 1:-1], atol=1e-4, rtol=0)
    assert (shifts[2:-1] - shifts[1:-2])[:, 1:-1].abs().max() < 0.5


def test_a_warp_is_a_function_of_its_seed_and_grows_with_its_strength():
    assert torch.equal(elastic(32, 4, 0.5, 7), elastic(32, 4, 0.5, 7))
    assert not torch.equal(elastic(32, 4, 0.5, 7), elastic(32, 4, 0.5, 8))
    clean = images(32)
    weak, strong = (
        (Warp(elastic(32, 4, strength, 0))(clean) - clean).abs().mean() for strength in (0.25, 2.0)
    )
    assert 0 < weak < strong / 2


def test_no_shift_changes_nothing():
    line = torch.linspace(-1, 1, 16)
    still = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=2)
    torch.testing.assert_close(Warp(still)(images(16)), images(16), atol=1e-5, rtol=0)
