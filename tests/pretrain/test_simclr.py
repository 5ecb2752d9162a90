from functools import cache

import pytest
import torch

from sslpurify.data import ViewSettings, from_pixels
from sslpurify.errors import DataError, TrainingError
from sslpurify.pretrain import SimclrSettings, train_simclr
from sslpurify.statedict import digest, identical
from tests import pico

QUICK = SimclrSettings(epochs=2, batch_size=8, learning_rate=1e-3)
ENCODER = pico.encoder()


@cache
def images():
    draws = torch.Generator().manual_seed(0)
    colour = torch.rand(24, 3, 1, 1, generator=draws)
    noise = torch.rand(24, 3, pico.SIZE, pico.SIZE, generator=draws)
    return from_pixels(((colour + noise) * 127).byte())


def train(settings=QUICK, **options):
    return train_simclr(ENCODER, images(), settings, **options)


def test_training_goes_on_from_weights_or_starts_from_the_seeds_own():
    fresh = ENCODER.fresh(0).weights()
    assert digest(train()) == digest(train(start=fresh))
    assert digest(train(seed=1)) == digest(train(seed=1, start=ENCODER.fresh(1).weights()))
    assert digest(train(start=pico.state(5))) != digest(train())


def test_the_weights_it_starts_from_are_left_alone_and_all_are_trained():
    start = pico.state(5)
    before = digest(start)
    trained = train(start=start)
    assert digest(start) == before
    assert set(trained) == set(start)
    assert not any(identical(trained[name], start[name]) for name in start)


def test_training_lowers_the_loss():
    """Views that keep colours, and all images in a batch: a step's loss varies little by chance."""
    alike = ViewSettings(min_scale=0.8, jitter_probability=0, grey_probability=0)
    settings = SimclrSettings(epochs=40, batch_size=24, learning_rate=3e-3, views=alike)
    told = []
    train(settings, listener=told.append)
    losses = [step.loss for step in told]
    assert len(losses) == 40
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])


def test_what_cannot_be_trained_is_said():
    with pytest.raises(DataError, match="24 clean images are too few: a batch takes 25"):
        train(SimclrSettings(batch_size=25))
    with pytest.raises(TrainingError, match=r"pre-training: the (loss|gradient) is .* of 6"):
        train(QUICK.model_copy(update={"learning_rate": 1e30}))
