import pytest
import torch

from sslpurify.errors import CheckpointError, DataError
from sslpurify.probes.features import prepare
from tests.probes.clusters import clusters

BANK, LABELS = clusters(30, seed=1)
QUERIES, _ = clusters(8, seed=2)


def spoiled(value):
    features = BANK.clone()
    features[17, 3] = value
    return features


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_embedding_that_is_no_number_is_the_encoders_fault(value):
    with pytest.raises(CheckpointError, match=r"bank: 1 of 30 .* row 17"):
        prepare(spoiled(value), LABELS, QUERIES, 5)
    with pytest.raises(CheckpointError, match=r"queries: 1 of 30 .* row 17"):
        prepare(BANK, LABELS, spoiled(value), 5)


def test_a_dead_embedding_has_no_direction_to_vote_with():
    queries = QUERIES.clone()
    queries[5] = 0
    with pytest.raises(CheckpointError, match=r"queries: 1 of 8 .* all zero, the first is row 5"):
        prepare(BANK, LABELS, queries, 5)


@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_a_collapsed_bank_is_refused(noise):
    collapsed = torch.ones(30, 16) + noise * BANK
    with pytest.raises(CheckpointError, match="bank: the embeddings of 30 images are collapsed"):
        prepare(collapsed, LABELS, QUERIES, 5)


def test_narrow_but_distinct_embeddings_are_not_collapsed():
    prepare(torch.ones(30, 16) + 0.02 * BANK, LABELS, QUERIES, 5)


def test_collapsed_queries_are_what_a_backdoor_makes():
    prepare(BANK, LABELS, torch.ones(8, 16), 5)


def test_what_does_not_fit_together_is_named():
    with pytest.raises(DataError, match="16 dimensions, queries 8"):
        prepare(BANK, LABELS, QUERIES[:, :8], 5)
    with pytest.raises(DataError, match="30 bank embeddings but 29 labels"):
        prepare(BANK, LABELS[:-1], QUERIES, 5)
    with pytest.raises(DataError, match="none of the 4 classes"):
        prepare(BANK, LABELS, QUERIES, 4)
    with pytest.raises(DataError, match="none of the 5 classes"):
        prepare(BANK, LABELS - 1, QUERIES, 5)
    with pytest.raises(DataError, match="queries: no embeddings"):
        prepare(BANK, LABELS, QUERIES[:0], 5)
    with pytest.raises(DataError, match="bank: no embeddings"):
        prepare(BANK[:0], LABELS[:0], QUERIES, 5)


def test_the_result_has_unit_length_and_the_input_is_left_alone():
    before = BANK.clone()
    unit, queries = prepare(BANK, LABELS, QUERIES.half(), 5)
    assert torch.equal(before, BANK)
    assert unit.dtype == queries.dtype == torch.float32
    torch.testing.assert_close(unit, BANK / BANK.norm(dim=1, keepdim=True))
