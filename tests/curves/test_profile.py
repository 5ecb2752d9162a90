import pytest
import torch
from torch.nn import functional as F

from sslpurify.curves import Point, survey
from sslpurify.curves.profile import nearest, overlap


def unit(count: int, length: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, length, generator=generator), dim=1)


def neighbours(embeddings: torch.Tensor, count: int) -> list[set[int]]:
    """One by one, by sorting."""
    found = []
    for row, embedding in enumerate(embeddings):
        similarity = (embeddings * embedding).sum(1).tolist()
        others = [index for index in range(len(embeddings)) if index != row]
        found.append(set(sorted(others, key=lambda index: -similarity[index])[:count]))
    return found


@pytest.mark.parametrize("count", [1, 5, 10])
def test_nearest_is_a_sort(count):
    embeddings = unit(40)
    found = [set(row) for row in nearest(embeddings, count).tolist()]
    assert found == neighbours(embeddings, count)


def test_nearest_goes_on_where_one_chunk_ends():
    embeddings = unit(1100)
    found = nearest(embeddings, 3)
    assert found.shape == (1100, 3)
    for row in (0, 1023, 1024, 1099):
        similarity = embeddings @ embeddings[row]
        similarity[row] = -1
        assert set(found[row].tolist()) == set(similarity.topk(3).indices.tolist())


def test_few_images_have_few_neighbours():
    assert nearest(unit(3)).shape == (3, 2)
    assert nearest(unit(3)).sort().values.tolist() == [[1, 2], [0, 2], [0, 1]]


def test_nearest_changes_nothing():
    embeddings = unit(20)
    before = embeddings.clone()
    nearest(embeddings)
    assert torch.equal(embeddings, before)


def test_overlap_is_the_mean_share_of_common_neighbours():
    one, two = unit(30, seed=1), unit(30, seed=2)
    pairs = zip(neighbours(one, 7), neighbours(two, 7), strict=True)
    expected = sum(len(a & b) / 7 for a, b in pairs) / 30
    assert overlap(nearest(one, 7), nearest(two, 7)) == pytest.approx(expected)
    assert 0 < expected < 1
    assert overlap(nearest(one), nearest(one)) == 1


def test_the_order_of_neighbours_does_not_matter():
    found = torch.tensor([[1, 2, 3]])
    assert overlap(found, found.flip(1)) == 1
    assert overlap(found, torch.tensor([[4, 2, 5]])) == pytest.approx(1 / 3)


def test_the_survey_compares_with_the_reference():
    reference, other = unit(25, seed=1) * 3, unit(25, seed=2)
    seen, told = [], []

    def measure(t: float) -> tuple[float, torch.Tensor]:
        seen.append(t)
        return 2 * t, reference * 0.1 if t == 0 else other

    points = survey(measure, reference, [0.0, 0.5], stage="look", listener=told.append)
    assert seen == [0.0, 0.5]
    assert points[0] == Point(0.0, 0.0, points[0].agreement, 1.0)
    assert points[0].agreement == pytest.approx(1)
    cosines = [float(a @ b / a.norm() / b.norm()) for a, b in zip(other, reference, strict=True)]
    common = overlap(nearest(other), nearest(F.normalize(reference, dim=1)))
    assert points[1] == Point(0.5, 1.0, points[1].agreement, common)
    assert points[1].agreement == pytest.approx(sum(cosines) / 25, abs=1e-6)
    assert common < 1
    assert [(step.stage, step.step, step.steps, step.loss) for step in told] == [
        ("look", 1, 2, 0.0),
        ("look", 2, 2, 1.0),
    ]
