import pytest
import torch

from sslpurify.errors import DataError
from sslpurify.probes import draw_shots

CLASSES = ("ant", "bee", "cat")
LABELS = torch.tensor([2, 0, 1, 1, 2, 0, 0, 1, 2, 0, 1, 2])


def test_as_many_of_every_class_in_the_order_of_the_bank():
    rows = draw_shots(LABELS, 2, CLASSES, seed=0)
    assert torch.bincount(LABELS[rows]).tolist() == [2, 2, 2]
    assert rows.tolist() == sorted(set(rows.tolist()))


def test_the_seed_decides_and_fewer_shots_are_among_more():
    drawn = [tuple(draw_shots(LABELS, 2, CLASSES, seed).tolist()) for seed in range(8)]
    assert drawn[0] == tuple(draw_shots(LABELS, 2, CLASSES, 0).tolist())
    assert len(set(drawn)) > 1
    assert set(draw_shots(LABELS, 1, CLASSES, 0).tolist()) < set(drawn[0])


def test_a_class_with_too_few_images_is_named():
    with pytest.raises(DataError, match="5 shots: the bank holds 4 images of class 'ant'"):
        draw_shots(LABELS, 5, CLASSES, 0)
    with pytest.raises(DataError, match="holds 0 images of class 'dog'"):
        draw_shots(LABELS, 1, (*CLASSES, "dog"), 0)
