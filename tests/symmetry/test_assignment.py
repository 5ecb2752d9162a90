import pytest
import torch

from sslpurify.symmetry.assignment import linear_assignment


def test_row_i_takes_column_result_i():
    scores = torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 9.0], [9.0, 0.0, 0.0]])
    assert linear_assignment(scores, "align").tolist() == [1, 2, 0]
    assert linear_assignment(-scores, "misalign").tolist() == [1, 2, 0]


def test_the_total_counts_not_the_best_pair():
    scores = torch.tensor([[10.0, 9.0], [9.0, 0.0]])
    assert linear_assignment(scores, "align").tolist() == [1, 0]
    assert linear_assignment(scores, "misalign").tolist() == [0, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_must_be_finite(bad):
    with pytest.raises(ValueError, match="NaN or infinity"):
        linear_assignment(torch.tensor([[1.0, bad], [0.0, 1.0]]), "align")


def test_scores_must_be_square():
    with pytest.raises(ValueError, match="2 rows by 3 columns"):
        linear_assignment(torch.zeros(2, 3), "align")
