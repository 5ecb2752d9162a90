import math

import pytest
import torch
from torch.nn import functional as F

from sslpurify.encoders import Captions, Output, Prompts, by_captions, by_views
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


@pytest.mark.parametrize("bias", [None, -3.0])
def test_pseudo_captions_are_the_nearest_prompts(bias):
    prompts, seen = Prompts(EMBEDDED, 7.0, bias), 5 * rows(3, seed=9)
    found = prompts.nearest(seen, 2)
    assert (found.embeddings is EMBEDDED, found.scale, found.bias) == (True, 7.0, bias)
    for choices, scores in zip(found.choices, cosines(seen, EMBEDDED.double()), strict=True):
        order = sorted(range(len(scores)), key=lambda row: -scores[row])
        assert choices.tolist() == order[:2]
    assert prompts.nearest(seen, 99).choices.shape == (3, len(EMBEDDED))
