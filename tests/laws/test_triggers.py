"""Law 8: triggers keep shape and range."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslpurify.attacks.patterns import BUILT_IN
from sslpurify.attacks.triggers import Trigger, read_trigger

seeds = st.integers(0, 2**31)


def uniform(seed, *shape):
    """Values in [0, 1] with many exact zeros and ones among them."""
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return ((values - 0.25) * 2).clamp(0, 1)


@given(seeds, st.integers(0, 4), st.integers(8, 24), st.booleans())
def test_any_trigger_keeps_shape_range_and_what_it_does_not_cover(seed, count, size, by_channel):
    pattern = uniform(seed, 3, size, size)
    mask = uniform(seed + 1, *(3, size, size)[0 if by_channel else 1 :])
    images = uniform(seed + 2, count, 3, size, size)
    before = images.clone()
    attacked = Trigger("any", pattern, mask)(images)
    assert torch.equal(images, before)
    assert attacked.shape == images.shape
    assert ((attacked >= 0) & (attacked <= 1)).all()
    whole = mask.expand(count, 3, size, size)
    assert torch.equal(attacked[whole == 0], images[whole == 0])
    assert torch.equal(attacked[whole == 1], pattern.expand_as(whole)[whole == 1])


@settings(max_examples=40)
@given(st.sampled_from(sorted(BUILT_IN)), st.integers(8, 64) | st.sampled_from([96, 224]), seeds)
def test_built_in_triggers_work_at_every_size(name, size, seed):
    images = uniform(seed, 1, 3, size, size)
    attacked = read_trigger(name, size)(images)
    assert attacked.shape == images.shape
    assert ((attacked >= 0) & (attacked <= 1)).all()
    assert torch.equal(attacked, read_trigger(name, size)(images))
    assert not torch.equal(attacked, images)
