import pytest
import torch
from scipy.stats import binomtest

from sslpurify.errors import DataError
from sslpurify.probes.paired import compare, mcnemar, newcombe


def pairs(both, lost, gained, neither):
    """Events before and after, as many pairs of each kind."""
    counts = torch.tensor([both, lost, gained, neither])
    before = torch.tensor([True, True, False, False]).repeat_interleave(counts)
    after = torch.tensor([True, False, True, False]).repeat_interleave(counts)
    order = torch.randperm(len(before), generator=torch.Generator().manual_seed(0))
    return before[order], after[order]


def test_a_published_example():
    """Bentur's patients in Fagerland, Lydersen and Laake 2014 (Statistics in Medicine 33:2850)."""
    change = compare(*pairs(1, 1, 7, 12))
    assert (change.low, change.high) == pytest.approx((0.026, 0.507), abs=5e-4)
    assert change.p == pytest.approx(0.0391, abs=5e-5)
    assert (change.value, change.n) == (6 / 21, 21)
    assert (change.only_before, change.only_after) == (1, 7)


@pytest.mark.parametrize(("lost", "gained"), [(1, 0), (0, 3), (5, 12), (400, 310), (7, 8)])
def test_the_mid_p_is_the_exact_p_less_the_likelihood_of_what_was_seen(lost, gained):
    exact = binomtest(lost, lost + gained).pvalue
    one = binomtest(lost, lost + gained, alternative="less").pvalue
    other = binomtest(lost, lost + gained, alternative="greater").pvalue
    assert mcnemar(lost, gained) == pytest.approx(exact - (one + other - 1), rel=1e-9)
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


def test_an_even_split_says_nothing():
    assert mcnemar(0, 0) == mcnemar(9, 9) == 1


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    draw = torch.Generator().manual_seed(1)
    shares = torch.tensor([0.42, 0.06, 0.03, 0.49])
    tables = torch.multinomial(shares, 3000 * 200, replacement=True, generator=draw)
    counts = torch.nn.functional.one_hot(tables.view(3000, 200), 4).sum(1).tolist()
    held = 0
    for both, lost, gained, _ in counts:
        low, high = newcombe(both, lost, gained, 200)
        held += low <= -0.03 <= high
    assert 0.935 < held / 3000 < 0.975


def test_pairs_tell_what_two_unpaired_intervals_cannot():
    change = compare(*pairs(900, 40, 10, 1050))
    assert change.high < 0  # the rates' own intervals are 4 points wide and overlap
    assert change.p < 1e-3


@pytest.mark.parametrize("table", [(5, 0, 0, 0), (0, 0, 0, 5), (0, 5, 0, 0), (0, 0, 5, 0)])
def test_rates_at_their_ends_have_intervals_too(table):
    change = compare(*pairs(*table))
    assert change.low < change.high
    assert change.low <= change.value <= change.high


def test_what_is_no_pair_is_refused():
    yes = torch.ones(3, dtype=torch.bool)
    with pytest.raises(DataError, match="3 images before, 2 after"):
        compare(yes, yes[:2])
    with pytest.raises(DataError, match="empty"):
        compare(yes[:0], yes[:0])
