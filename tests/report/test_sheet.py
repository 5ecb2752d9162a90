from io import BytesIO

import pytest
import torch
from PIL import Image

from sslpurify.report.sheet import amplification, contact_sheet

CLEAN = torch.full((3, 3, 16, 16), 0.5)
CAPTIONS = ("blue", "a $very$ long name of a class", "red\x07")


def draw(triggered, **changes):
    given = {"captions": CAPTIONS, "title": "trigger x_$1$", "description": "{kind: x}"} | changes
    return contact_sheet(CLEAN, triggered, **given)


def test_a_sheet_is_a_picture_and_the_same_bytes_again():
    triggered = CLEAN.clone()
    triggered[:, :, 2:5, 2:5] = 0.6
    first, factor = draw(triggered)
    with Image.open(BytesIO(first)) as picture:
        assert picture.format == "PNG"
        assert picture.width >= 600
    assert factor == 10
    assert first == draw(triggered)[0]
    assert first != draw(triggered, title="trigger y")[0]
    assert first != draw(triggered, description="another " * 200)[0]


def test_the_difference_is_drawn_amplified_around_grey():
    """The colours of the three rows are where they should be."""
    triggered = CLEAN.clone()
    triggered[:, 0] += 0.2
    with Image.open(BytesIO(draw(triggered)[0])) as picture:
        counts = {colour: n for n, colour in picture.convert("RGB").getcolors(2**20)}
    clean, shown, changed = (
        sum(
            n for (r, g, b), n in counts.items() if abs(r - red) < 2 and g == b and abs(g - 127) < 2
        )
        for red in (127, 178, 255)
    )
    assert min(clean, shown, changed) > 10_000
    assert clean == pytest.approx(changed, rel=0.05)
    assert shown == pytest.approx(changed, rel=0.05)


@pytest.mark.parametrize(
    ("most", "factor"), [(1.0, 1), (0.6, 1), (0.5, 2), (0.19, 5), (0.1, 10), (0.004, 100), (0, 100)]
)
def test_the_factor_is_the_largest_that_keeps_the_colours(most, factor):
    difference = torch.zeros(1, 3, 8, 8)
    difference[0, 0, 0, :2] = torch.tensor([-most, most / 2])
    difference[0, 1, 0, :3] = -most
    assert amplification(difference) == factor


def test_a_few_extreme_pixels_do_not_hide_the_rest():
    difference = torch.full((1, 3, 20, 20), 0.05)
    difference[0, 0, 0, 0] = 1
    assert amplification(difference) == 20
