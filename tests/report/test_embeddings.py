import pytest
import torch
from torch.nn import functional as F

from sslpurify.report import embedding_map, nearest, spread


def embeddings(count: int = 60, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 12, generator=generator) * torch.arange(12, 0, -1)


def test_the_map_is_the_principal_component_analysis_of_the_first_encoder() -> None:
    clean, moved = embeddings(), embeddings(seed=1)
    labels = torch.arange(60) % 3
    found = embedding_map({"before": (clean, moved), "after": (moved, None)}, labels)
    unit = F.normalize(clean.double(), dim=1)
    centred = unit - unit.mean(0)
    _, values, rows = torch.linalg.svd(centred, full_matrices=False)
    ours = torch.tensor(found["encoders"]["before"]["clean"]).double()
    slow = centred @ rows[:2].T
    assert torch.allclose(ours.abs(), slow.abs(), atol=1e-4)
    shares = values.square() / values.square().sum()
    assert found["explained"] == pytest.approx(shares[:2].tolist(), abs=1e-4)
    away = (F.normalize(moved.double(), dim=1) - unit.mean(0)) @ rows[:2].T
    for which, kind in (("before", "triggered"), ("after", "clean")):
        placed = torch.tensor(found["encoders"][which][kind]).double()
        assert torch.allclose(placed.abs(), away.abs(), atol=1e-4)
    assert found["encoders"]["after"]["triggered"] is None


def test_the_map_holds_all_that_it_shows_and_no_more_than_asked() -> None:
    labels = torch.arange(60) % 3
    found = embedding_map({"before": (embeddings(), 3 * embeddings(seed=2))}, labels, points=20)
    assert found["labels"] == labels[spread(60, 20)].tolist()
    (left, right), (bottom, top) = found["limits"]
    assert right - left == pytest.approx(top - bottom, abs=1e-3)
    for places in found["encoders"]["before"].values():
        assert len(places) == 20
        assert all(left <= x <= right and bottom <= y <= top for x, y in places)


def test_collapsed_embeddings_have_a_map_too() -> None:
    same = torch.ones(10, 4)
    found = embedding_map({"before": (same, same)}, torch.zeros(10, dtype=torch.int64))
    assert found["explained"] == [0, 0]
    assert found["limits"][0][0] < found["limits"][0][1]


def test_the_nearest_are_those_of_the_largest_cosine() -> None:
    bank, queries = embeddings(), embeddings(4, seed=3)
    cosines, rows = nearest(bank, queries)
    slow = F.cosine_similarity(queries[:, None].double(), bank[None].double(), dim=2)
    assert rows.tolist() == slow.argsort(dim=1, descending=True)[:, :5].tolist()
    assert torch.allclose(cosines, slow.gather(1, rows))


def test_an_image_is_not_its_own_neighbour() -> None:
    bank = embeddings(4)
    own = torch.tensor([2, 0])
    _, rows = nearest(bank, bank[own], except_for=own)
    assert [sorted(found) for found in rows.tolist()] == [[0, 1, 3], [1, 2, 3]]
    assert nearest(bank, bank[own])[1][:, 0].tolist() == own.tolist()
