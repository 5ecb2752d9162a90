"""Law 7: a bank has no order, and images of the target class do not count."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from sslpurify.errors import DataError
from sslpurify.probes.knn import knn_predict
from sslpurify.probes.metrics import fooled, wilson
from sslpurify.probes.paired import compare

CLASSES = 3


@st.composite
def banks(draw):
    """Embeddings from a coarse grid, so that neighbours tie and members repeat."""
    count = draw(st.integers(4, 40))
    row = st.lists(st.integers(-1, 1), min_size=3, max_size=3).filter(any)
    bank = torch.tensor(draw(st.lists(row, min_size=count, max_size=count))).float()
    assume((bank != bank[0]).any())
    label = st.integers(0, CLASSES - 1)
    labels = torch.tensor(draw(st.lists(label, min_size=count, max_size=count)))
    queries = torch.tensor(draw(st.lists(row, min_size=1, max_size=30))).float()
    return bank, labels, queries


@given(banks(), st.data())
def test_the_order_of_the_bank_does_not_matter(drawn, data):
    bank, labels, queries = drawn
    k = data.draw(st.integers(1, len(bank)))
    order = torch.tensor(data.draw(st.permutations(range(len(bank)))))
    scale = 2.0 ** data.draw(st.integers(-3, 3))
    unit = (bank / bank.norm(dim=1, keepdim=True)).unique(dim=0)
    assume(len(unit) > 1)
    found = knn_predict(bank, labels, queries, CLASSES, k=k)
    again = knn_predict(scale * bank[order], labels[order], queries, CLASSES, k=k)
    assert torch.equal(found, again)


@given(banks(), st.integers(1, 1000))
def test_more_neighbours_than_the_bank_holds_never_vote(drawn, more):
    bank, labels, queries = drawn
    with pytest.raises(DataError, match="neighbours"):
        knn_predict(bank, labels, queries, CLASSES, k=len(bank) + more)


@given(st.data())
def test_images_of_the_target_class_change_no_rate_under_exclude_target(data):
    count = data.draw(st.integers(1, 30))
    classes = st.lists(st.integers(0, CLASSES - 1), min_size=count, max_size=count)
    labels, predictions, others = (torch.tensor(data.draw(classes)) for _ in range(3))
    target = data.draw(st.integers(0, CLASSES - 1))
    assume((labels != target).any())
    changed = torch.where(labels == target, others, predictions)
    rate = fooled(predictions, labels, target).rate()
    assert rate == fooled(changed, labels, target).rate()
    assert rate.n == int((labels != target).sum())


@given(st.integers(1, 10**6), st.data())
def test_an_interval_holds_its_value(n, data):
    rate = wilson(data.draw(st.integers(0, n)), n)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1


@given(st.integers(1, 400), st.data())
def test_a_change_turns_round_with_its_pairs(n, data):
    events = st.lists(st.booleans(), min_size=n, max_size=n)
    before, after = (torch.tensor(data.draw(events)) for _ in range(2))
    there, back = compare(before, after), compare(after, before)
    assert (there.value, there.p) == (-back.value, back.p)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    assert -1 - 1e-12 <= there.low <= there.value <= there.high <= 1 + 1e-12
    assert 0 <= there.p <= 1
