import pytest
import torch
from torch.nn import functional as F

from sslpurify.errors import CheckpointError, DataError
from sslpurify.probes.knn import knn_predict
from tests.probes.clusters import clusters

BANK, LABELS = clusters(300, seed=1)
QUERIES, TRUTH = clusters(100, seed=2)


def oracle(bank, labels, queries, classes, k, temperature):
    """The same votes from a full similarity matrix in float64."""
    similarity = F.normalize(queries.double()) @ F.normalize(bank.double()).T
    nearest = similarity.topk(k)
    votes = (nearest.values / temperature).exp()[..., None] * F.one_hot(labels, classes)[
        nearest.indices
    ]
    return votes.sum(dim=1).argmax(dim=1)


@pytest.mark.parametrize("k", [1, 7, 200, 300])
@pytest.mark.parametrize("temperature", [0.02, 0.1, 0.5])
def test_votes_are_those_of_a_full_similarity_matrix(k, temperature):
    found = knn_predict(BANK, LABELS, QUERIES, 5, k=k, temperature=temperature)
    assert torch.equal(found, oracle(BANK, LABELS, QUERIES, 5, k, temperature))


def test_it_classifies():
    found = knn_predict(BANK, LABELS, QUERIES, 5, k=20)
    assert (found == TRUTH).float().mean() > 0.9


def test_weights_decide_and_not_the_number_of_votes():
    bank = torch.tensor([[1.0, 0.1], [0.5, 1.0], [0.5, 1.0]])
    labels = torch.tensor([0, 1, 1])
    query = torch.tensor([[1.0, 0.0]])
    assert knn_predict(bank, labels, query, 2, k=3, temperature=0.1).tolist() == [0]
    assert knn_predict(bank, labels, query, 2, k=3, temperature=10.0).tolist() == [1]


def test_a_tiny_temperature_neither_overflows_nor_loses_the_nearest():
    found = knn_predict(BANK, LABELS, QUERIES, 5, k=50, temperature=1e-6)
    assert torch.equal(found, oracle(BANK, LABELS, QUERIES, 5, 1, 1.0))


def test_k_above_the_bank_is_an_error():
    with pytest.raises(DataError, match=r"k = 301 .* holds 300 images"):
        knn_predict(BANK, LABELS, QUERIES, 5, k=301)


@pytest.mark.parametrize(("k", "temperature"), [(0, 0.1), (-1, 0.1), (5, 0.0), (5, -1.0)])
def test_senseless_settings_are_refused(k, temperature):
    with pytest.raises(ValueError, match="must be positive"):
        knn_predict(BANK, LABELS, QUERIES, 5, k=k, temperature=temperature)


def test_unusable_embeddings_do_not_vote():
    with pytest.raises(CheckpointError, match="collapsed"):
        knn_predict(torch.ones(300, 16), LABELS, QUERIES, 5)
    with pytest.raises(CheckpointError, match="NaN"):
        knn_predict(BANK, LABELS, QUERIES / 0 * 0, 5)


def test_embeddings_made_in_inference_mode_are_welcome():
    with torch.inference_mode():
        bank, queries = BANK * 1, QUERIES * 1
    assert torch.equal(knn_predict(bank, LABELS, queries, 5), knn_predict(BANK, LABELS, QUERIES, 5))
