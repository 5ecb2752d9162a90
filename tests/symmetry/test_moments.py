import numpy as np
import pytest
import torch
from torch import Tensor

from sslpurify.symmetry.moments import CoMoments, centre


def pearson(x: Tensor, y: Tensor, batch: int) -> Tensor:
    moments = None
    for start in range(0, len(x), batch):
        a = centre(x[start : start + batch])
        b = a if y is x else centre(y[start : start + batch])
        moments = moments or CoMoments(a, b)
        moments.add(a, b)
    assert moments is not None
    return moments.pearson()


def samples(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(x: Tensor, y: Tensor) -> np.ndarray:
    whole = np.corrcoef(x.double().numpy(), y.double().numpy(), rowvar=False)
    return whole[: x.shape[1], x.shape[1] :]


@pytest.mark.parametrize("batch", [1, 7, 50, 100])
def test_any_split_into_batches_gives_the_exact_correlation(batch):
    x, y = samples(100, 5), samples(100, 4, seed=1) + samples(100, 4).cumsum(0)
    np.testing.assert_allclose(pearson(x, y, batch), reference(x, y), atol=1e-13)
    np.testing.assert_allclose(pearson(x, x, batch), reference(x, x), atol=1e-13)


def test_batches_whose_means_differ_are_not_averaged():
    x = samples(60, 3) + torch.arange(60)[:, None] // 20 * samples(1, 3, seed=2) * 10
    result = pearson(x, x, 20)
    np.testing.assert_allclose(result, reference(x, x), atol=1e-13)
    averaged = sum(reference(part, part) for part in x.split(20)) / 3
    assert np.abs(averaged - result.numpy()).max() > 0.1


def test_large_means_cancel_nothing_in_single_precision():
    x = (samples(4000, 4) + samples(4000, 1, seed=1) + 300).float()
    result = pearson(x, x, 1000)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result, reference(x, x), atol=1e-4)
    raw = x.T @ x / len(x) - x.mean(0).outer(x.mean(0))
    naive = raw / raw.diagonal().sqrt().outer(raw.diagonal().sqrt())
    assert np.abs(naive.numpy() - reference(x, x)).max() > 1e-3


def test_scale_does_not_matter():
    x = samples(50, 4)
    scaled = x * torch.tensor([1e-15, 1.0, 1e3, 1e15])
    np.testing.assert_allclose(
        pearson(scaled.float(), scaled.float(), 10), reference(x, x), atol=1e-5
    )


def test_dead_channels_correlate_with_nothing():
    x = samples(64, 4).float()
    x[:, 1], x[:, 2] = 0.0, 0.1
    result = pearson(x, x, 16)
    assert torch.equal(result[1:3], torch.zeros(2, 4))
    assert torch.equal(result[:, 1:3], torch.zeros(4, 2))
    np.testing.assert_allclose(result[::3, ::3], reference(x[:, ::3], x[:, ::3]), atol=1e-6)


def test_a_channel_constant_in_each_batch_is_not_dead():
    x = torch.stack([torch.arange(40.0) // 10, samples(40).float()], 1)
    np.testing.assert_allclose(pearson(x, x, 10), reference(x, x), atol=1e-6)


def test_half_precision_is_counted_in_single():
    x = samples(512, 3).half()
    result = pearson(x, x, 128)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result, reference(x, x), atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_what_is_not_finite_is_found(bad):
    x = samples(8, 3).float()
    fine, broken = centre(x), centre(x.index_fill(1, torch.tensor([1]), bad))
    moments = CoMoments(fine, fine)
    moments.add(fine, fine)
    assert moments.finite()
    moments.add(fine, broken)
    assert moments.finite() == (bad == 1e30)  # a constant has no squares to overflow
    spiked = centre(torch.cat([x, torch.full((1, 3), bad)]))
    moments.add(spiked, spiked)
    assert not moments.finite()
