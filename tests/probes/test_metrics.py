import pytest
import torch
from pydantic import ValidationError
from scipy.stats import binomtest

from sslpurify.errors import DataError, GateError
from sslpurify.probes.metrics import (
    Gate,
    Hits,
    Measurement,
    Rate,
    correct,
    fooled,
    near_chance,
    require_gate,
    wilson,
)

LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
PREDICTIONS = torch.tensor([0, 2, 2, 1, 2, 2])


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (3, 7), (920, 2000)])
def test_the_interval_is_wilsons(hits, n):
    rate = wilson(hits, n)
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert (rate.low, rate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert (rate.value, rate.n) == (hits / n, n)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1


def test_no_images_are_an_error_not_a_rate():
    nothing = torch.zeros(0, dtype=torch.long)
    with pytest.raises(DataError, match="empty"):
        wilson(0, 0)
    with pytest.raises(DataError, match="empty"):
        correct(nothing, nothing).rate()
    with pytest.raises(DataError, match="all 0 test images"):
        fooled(nothing, nothing, 2, "all")


def test_clean_accuracy_and_its_classes():
    hits = correct(PREDICTIONS, LABELS)
    assert hits.rate() == wilson(4, 6)
    assert hits.rates_by_class(4) == (wilson(1, 2), wilson(1, 2), wilson(2, 2), None)


def test_the_two_protocols_differ_by_the_images_of_the_target_class():
    assert fooled(PREDICTIONS, LABELS, 2).rate() == wilson(2, 4)
    assert fooled(PREDICTIONS, LABELS, 2, "all").rate() == wilson(4, 6)


def test_success_by_the_class_that_an_image_comes_from():
    assert fooled(PREDICTIONS, LABELS, 2).rates_by_class(3) == (wilson(1, 2), wilson(1, 2), None)
    assert fooled(PREDICTIONS, LABELS, 2, "all").rates_by_class(3)[2] == wilson(2, 2)


def test_a_test_set_of_target_images_only_has_no_rate():
    ones = torch.ones(3, dtype=torch.long)
    with pytest.raises(DataError, match="all 3 test images are of target class 1"):
        fooled(ones, ones, 1)


@pytest.mark.parametrize(
    ("hits", "n", "classes", "expected"),
    [
        (200, 2000, 10, True),
        (280, 2000, 10, True),  # 14 %, down to 12.5 %
        (500, 2000, 10, False),
        (3, 10, 10, True),  # too few images to tell
        (540, 1000, 2, True),
        (700, 1000, 2, False),
        (60, 10000, 1000, False),
        (12, 10000, 1000, True),
    ],
)
def test_near_chance(hits, n, classes, expected):
    assert near_chance(wilson(hits, n), classes) is expected


def hits(count, n):
    return Hits(torch.arange(n) < count, torch.zeros(n, dtype=torch.long))


def measured(accuracy, success):
    return Measurement(hits(accuracy, 2000), hits(success, 1800))


def test_the_gate_lets_an_embedded_attack_through():
    gate = Gate(min_attack_success_rate=0.9, min_clean_accuracy=0.45, max_accuracy_drop=0.02)
    require_gate(measured(1000, 95), measured(970, 1790), gate)


def test_the_gate_names_every_missed_floor_at_once():
    gate = Gate(min_attack_success_rate=0.9, min_clean_accuracy=0.45, max_accuracy_drop=0.02)
    with pytest.raises(GateError) as error:
        require_gate(measured(1000, 95), measured(800, 169), gate)
    text = str(error.value)
    assert "attack success rate 9.4 % (8.1 to 10.8, n = 1800), floor 90.0 %" in text
    assert "clean accuracy 40.0 % (37.9 to 42.2, n = 2000), floor 45.0 %" in text
    assert "fell by 10.0 points from 50.0 %" in text
    victim, clean = text.splitlines()[4:]
    assert victim.startswith("victim: clean accuracy 40.0 %")
    assert clean.endswith("attack success rate 5.3 % (4.3 to 6.4, n = 1800)")


def test_the_gate_counts_a_drop_against_the_clean_encoder():
    gate = Gate(max_accuracy_drop=0.02)
    with pytest.raises(GateError, match=r"fell by 2\.5 points"):
        require_gate(measured(1000, 95), measured(950, 1790), gate)
    require_gate(measured(960, 95), measured(950, 1790), gate)


def test_a_gate_needs_an_attack_success_rate():
    with pytest.raises(ValueError, match="attack success rate"):
        require_gate(measured(1, 1), Measurement(hits(1, 2)), Gate())


def test_a_gate_has_no_other_keys():
    with pytest.raises(ValidationError):
        Gate.model_validate({"min_asr": 0.9})


def test_a_rate_reads_well():
    assert str(Rate(0.4634, 0.4416, 0.4853, 2000)) == "46.3 % (44.2 to 48.5, n = 2000)"
