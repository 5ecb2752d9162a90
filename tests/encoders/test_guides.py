import math

import pytest
import torch
from torch.nn import functional as F

from sslpurify.encoders import Captions, Output, Prompts, by_captions, by_soft_captions, by_views
from sslpurify.losses import nt_xent
from sslpurify.rng import generator


def rows(count: int, length: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, length, generator=torch.Generator().manual_seed(seed))


def output(count: int = 4, seed: int = 0) -> Output:
    return Output(rows(count, seed=seed), rows(count, 3, seed=seed + 100))


EMBEDDED = F.normalize(rows(6, seed=7), dim=1)
CHOICES = torch.tensor([[0, 1], [2, 2], [3, 4], [5, 5], [1, 0]])
INDICES = torch.tensor([4, 0, 2, 3])


def softmax(scores: list[float]) -> list[float]:
    top = max(scores)
    total = sum(math.exp(score - top) for score in scores)
    return [math.exp(score - top) / total for score in scores]


def cosines(views: torch.Tensor, captions: torch.Tensor) -> list[list[float]]:
    return [[float(v @ c / v.norm() / c.norm()) for c in captions] for v in views.double()]


def test_two_views_are_compared_by_their_projections():
    first, second = output(seed=1), output(seed=2)
    guide = by_views(0.3)
    assert guide.views == 2
    value = guide.loss([first, second], INDICES, generator(0))
    assert torch.equal(value, nt_xent(0.3)(first.projection, second.projection))


def test_an_image_is_compared_with_one_of_its_own_captions():
    captions = Captions(EMBEDDED, CHOICES, 10.0)
    drawn = [captions.drawn(INDICES, generator(seed)) for seed in range(20)]
    for said in drawn:
        for row, index in zip(said, INDICES, strict=True):
            assert any(torch.equal(row, EMBEDDED[choice]) for choice in CHOICES[index])
    assert len({tuple(said[:, 0].tolist()) for said in drawn}) > 2
    assert torch.equal(drawn[3], captions.drawn(INDICES, generator(3)))


def test_captions_give_info_nce():
    captions = Captions(EMBEDDED, CHOICES[:, :1], 10.0)
    guide = by_captions(captions)
    seen = output()
    value = float(guide.loss([seen], INDICES, generator(0)))
    scores = cosines(seen.embedding, EMBEDDED[CHOICES[INDICES, 0]].double())
    across = [list(column) for column in zip(*scores, strict=True)]
    terms = [
        -math.log(softmax([10 * score for score in table[row]])[row])
        for table in (scores, across)
        for row in range(4)
    ]
    assert guide.views == 1
    assert value == pytest.approx(sum(terms) / 8, rel=1e-5)


def test_captions_with_a_bias_give_the_sigmoid_loss():
    captions = Captions(EMBEDDED, CHOICES[:, :1], 10.0, -3.0)
    seen = output()
    value = float(by_captions(captions).loss([seen], INDICES, generator(0)))
    scores = cosines(seen.embedding, EMBEDDED[CHOICES[INDICES, 0]].double())
    terms = [
        math.log1p(math.exp(-(1 if row == column else -1) * (10 * scores[row][column] - 3)))
        for row in range(4)
        for column in range(4)
    ]
    assert value == pytest.approx(sum(terms) / 4, rel=1e-5)


def test_targets_are_each_image_s_own_softmax_over_the_prompts():
    prompts = Prompts(EMBEDDED, 7.0)
    seen = rows(3, seed=9)
    found = prompts.targets(seen)
    for row, scores in zip(found, cosines(seen, EMBEDDED.double()), strict=True):
        assert row.tolist() == pytest.approx(softmax([7 * score for score in scores]), rel=1e-4)


@pytest.mark.parametrize("contrast", [0.0, 0.5])
def test_soft_captions_hold_both_views_to_the_targets(contrast):
    prompts, views = Prompts(EMBEDDED, 7.0), [output(seed=1), output(seed=2)]
    targets = prompts.targets(rows(5, seed=3))
    guide = by_soft_captions(prompts, targets, temperature=0.3, contrast=contrast)
    value = float(guide.loss(views, INDICES, generator(0)))
    held = 0.0
    for view in views:
        for row, index in zip(cosines(view.embedding, EMBEDDED.double()), INDICES, strict=True):
            shares = softmax([7 * score for score in row])
            wanted = targets[index].tolist()
            held -= sum(w * math.log(s) for w, s in zip(wanted, shares, strict=True)) / 8
    apart = float(nt_xent(0.3)(views[0].projection, views[1].projection))
    assert guide.views == 2
    assert value == pytest.approx(held + contrast * apart, rel=1e-5)


def test_an_image_that_is_as_it_was_is_at_the_minimum_of_its_soft_captions():
    prompts, embedding = Prompts(EMBEDDED, 7.0), rows(4, seed=3).requires_grad_()
    targets = prompts.targets(embedding.detach())
    guide = by_soft_captions(prompts, targets, temperature=0.3, contrast=0.0)
    view = Output(embedding, rows(4, 3))
    guide.loss([view, view], torch.arange(4), generator(0)).backward()
    assert embedding.grad.abs().max() < 1e-6
