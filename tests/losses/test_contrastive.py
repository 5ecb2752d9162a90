import math

import pytest
import torch
from lightly.loss import NTXentLoss

from sslpurify.losses import info_nce, nt_xent, siglip


def projections(count: int, length: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, count, length, generator=generator)
    return first, second


def slow(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    """SimCLR, equation 1 and algorithm 1, one pair at a time, in double precision."""
    views = [*first.double(), *second.double()]
    count = len(first)
    total = 0.0
    for i, anchor in enumerate(views):
        scores = {
            k: float(torch.dot(anchor, view) / anchor.norm() / view.norm()) / temperature
            for k, view in enumerate(views)
            if k != i
        }
        top = max(scores.values())
        normalizer = top + math.log(sum(math.exp(score - top) for score in scores.values()))
        total += normalizer - scores[(i + count) % (2 * count)]
    return total / (2 * count)


@pytest.mark.parametrize("temperature", [0.01, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_equals_the_slow_reference(count, temperature):
    first, second = projections(count)
    value = float(nt_xent(temperature)(first, second))
    assert value == pytest.approx(slow(first, second, temperature), rel=1e-5)


def test_is_the_library_s():
    first, second = projections(6)
    assert torch.equal(nt_xent(0.2)(first, second), NTXentLoss(0.2)(first, second))
    assert torch.equal(nt_xent()(first, second), NTXentLoss(0.5)(first, second))


@pytest.mark.parametrize(
    "pair",
    [
        projections(8),
        projections(8, length=1),
        (torch.ones(8, 5), torch.ones(8, 5)),
        (torch.ones(8, 5), -torch.ones(8, 5)),
        (torch.zeros(8, 5), torch.ones(8, 5)),
        (1e18 * projections(8)[0], 1e-18 * projections(8)[1]),
    ],
    ids=["random", "line", "collapsed", "opposite", "dead", "extreme"],
)
def test_finite_at_a_temperature_of_a_hundredth(pair):
    first, second = (view.clone().requires_grad_() for view in pair)
    loss = nt_xent(0.01)(first, second)
    loss.backward()
    assert loss.isfinite()
    assert first.grad.isfinite().all()
    assert second.grad.isfinite().all()


def test_views_may_be_exchanged_and_scaled():
    first, second = projections(6)
    loss = nt_xent(0.3)
    value = loss(first, second)
    torch.testing.assert_close(loss(second, first), value)
    torch.testing.assert_close(loss(7 * first, 0.1 * second), value)


def test_agreement_is_better_than_disagreement():
    first, second = projections(6)
    loss = nt_xent()
    assert loss(first, first) < loss(first, second) < loss(first, -first)


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_without_negatives_is_refused(count):
    first, second = projections(count)
    with pytest.raises(ValueError, match=f"at least 2 images in a batch, not {count}"):
        nt_xent()(first, second)


@pytest.mark.parametrize("temperature", [0.0, -0.5])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match="must be above 0"):
        nt_xent(temperature)


def test_float32_even_under_autocast():
    first, second = (view.bfloat16() for view in projections(6))
    expected = nt_xent(0.05)(first.float(), second.float())
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(0.05)(first, second)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


def unit_products(pair: tuple[torch.Tensor, torch.Tensor]) -> list[list[float]]:
    """Cosines of every image with every caption, one at a time, in double precision."""
    return [
        [float(a @ b / a.norm() / b.norm()) for b in pair[1].double()] for a in pair[0].double()
    ]


def slow_info_nce(pair: tuple[torch.Tensor, torch.Tensor], scale: float) -> float:
    """Radford et al. 2021, figure 3."""
    table = unit_products(pair)
    total = 0.0
    for rows in (table, [list(column) for column in zip(*table, strict=True)]):
        for number, row in enumerate(rows):
            top = max(row) * scale
            spread = sum(math.exp(scale * score - top) for score in row)
            total += top + math.log(spread) - scale * row[number]
    return total / (2 * len(table))


def slow_siglip(pair: tuple[torch.Tensor, torch.Tensor], scale: float, bias: float) -> float:
    """Zhai et al. 2023, algorithm 1."""
    total = 0.0
    for i, row in enumerate(unit_products(pair)):
        for j, score in enumerate(row):
            logit = (1 if i == j else -1) * (scale * score + bias)
            total += max(-logit, 0) + math.log1p(math.exp(-abs(logit)))
    return total / len(pair[0])


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
@pytest.mark.parametrize("count", [2, 7])
def test_info_nce_and_siglip_are_the_papers(count, scale):
    pair = projections(count)
    assert float(info_nce(*pair, scale)) == pytest.approx(slow_info_nce(pair, scale), rel=1e-5)
    for bias in (-10.0, 0.0):
        expected = slow_siglip(pair, scale, bias)
        assert float(siglip(*pair, scale, bias)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("length", [1e-4, 1.0, 1e4])
def test_captions_that_agree_or_contradict_give_finite_gradients(length):
    for sign in (1, -1):
        images = (length * projections(5)[0]).requires_grad_()
        captions = sign * images.detach()
        for loss in (info_nce(images, captions, 100.0), siglip(images, captions, 100.0, -10.0)):
            images.grad = None
            loss.backward()
            assert loss.isfinite()
            assert images.grad.isfinite().all()


def test_one_pair_has_no_negatives():
    pair = projections(1)
    for loss in (lambda: info_nce(*pair, 10.0), lambda: siglip(*pair, 10.0, -10.0)):
        with pytest.raises(ValueError, match="at least 2 images in a batch, not 1"):
            loss()


def test_scale_and_bias_can_be_trained():
    scale, bias = torch.tensor(3.0, requires_grad=True), torch.tensor(-1.0, requires_grad=True)
    (info_nce(*projections(4), scale) + siglip(*projections(4), scale, bias)).backward()
    assert scale.grad.abs() > 0
    assert bias.grad.abs() > 0
