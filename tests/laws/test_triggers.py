"""Law 8: triggers keep shape and range."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslpurify.attacks.effects import Add, Blend, Chain, Warp
from sslpurify.attacks.patterns import BUILT_IN
from sslpurify.attacks.triggers import read_trigger

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
    attacked = Blend(pattern, mask)(images)
    assert torch.equal(images, before)
    assert attacked.shape == images.shape
    assert ((attacked >= 0) & (attacked <= 1)).all()
    whole = mask.expand(count, 3, size, size)
    assert torch.equal(attacked[whole == 0], images[whole == 0])
    assert torch.equal(attacked[whole == 1], pattern.expand_as(whole)[whole == 1])


@settings(max_examples=40)
@given(seeds, st.integers(0, 3), st.integers(8, 24), st.data())
def test_any_effects_in_any_order_keep_shape_and_range(seed, count, size, data):
    one_of_each = [
        Blend(uniform(seed, 3, size, size), uniform(seed + 1, size, size)),
        Add(uniform(seed + 2, 3, size, size) * 2 - 1),
        Warp(uniform(seed + 3, size, size, 2) * 2 - 1),
    ]
    effects = data.draw(st.lists(st.sampled_from(one_of_each), max_size=4))
    images = uniform(seed + 4, count, 3, size, size)
    before = images.clone()
    attacked = Chain(effects)(images)
    assert torch.equal(images, before)
    assert attacked.shape == images.shape
    assert ((attacked >= 0) & (attacked <= 1)).all()
    expected = images
    for effect in effects:
        expected = effect(expected)
    assert torch.equal(attacked, expected)


@settings(max_examples=40)
@given(st.sampled_from(sorted(BUILT_IN)), st.integers(8, 64) | st.sampled_from([96, 224]), seeds)
def test_built_in_triggers_work_at_every_size(name, size, seed):
    if name == "frequency":
        size = (size // 32 + 1) * 32
    images = uniform(seed, 1, 3, size, size)
    attacked = read_trigger(name, size)(images)
    assert attacked.shape == images.shape
    assert ((attacked >= 0) & (attacked <= 1)).all()
    assert torch.equal(attacked, read_trigger(name, size)(images))
    assert not torch.equal(attacked, images)
