import re
from functools import cache

import pytest
import torch

from sslpurify.data import CaptionedImages, ViewSettings, from_pixels
from sslpurify.errors import DataError, TrainingError
from sslpurify.pretrain import ClipSettings, train_clip
from sslpurify.statedict import digest, identical
from tests import pico_clip
from tests.encoders.test_open_clip import create_pico

QUICK = ClipSettings(
    epochs=1,
    batch_size=8,
    learning_rate=1e-2,
    warmup_steps=1,
    views=ViewSettings(min_scale=0.8, jitter_probability=0, grey_probability=0),
)


@cache
def pairs(count: int = 24) -> CaptionedImages:
    """Images of three colours and what they are called, in two ways each."""
    names = ("blue", "green", "red")
    pixels = (pico_clip.images(count) * 80).byte()
    for number in range(count):
        pixels[number, 2 - number % 3] += 150
    captions = tuple(
        (f"a photo of a {names[number % 3]} thing", f"{names[number % 3]}")
        for number in range(count)
    )
    return CaptionedImages(from_pixels(pixels), captions)


def train(kind: str = "vit", settings: ClipSettings = QUICK, seed: int = 0, **options):
    encoder = create_pico(kind)
    given = options.pop("pairs", None) or pairs()
    return train_clip(
        encoder,
        encoder.fresh(1),
        encoder.text.fresh(1),
        given,
        settings,
        seed=seed,
        stage="training",
        **options,
    )


def changed(**values: object) -> ClipSettings:
    return QUICK.model_copy(update=values)


@pytest.mark.parametrize("kind", ["rn", "vit"])
def test_training_lowers_the_loss(kind):
    told = []
    train(kind, changed(epochs=8), listener=told.append)
    losses = [step.loss for step in told]
    assert len(losses) == 24
    assert [step.step for step in told] == list(range(1, 25))
    assert {(step.stage, step.steps, step.images) for step in told} == {("training", 24, 8)}
    assert sum(losses[-4:]) < 0.85 * sum(losses[:4])


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others():
    torch.manual_seed(3)
    one, two, other = ([digest(state) for state in train(seed=seed)] for seed in (0, 0, 1))
    assert one == two
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_both_towers_are_trained_and_the_scale_keeps_its_limits():
    encoder = create_pico("vit")
    image, text = train(settings=changed(learning_rate=1.0))
    before = encoder.fresh(1).state_dict()
    assert not any(identical(image[name], before[name]) for name in before)
    assert set(text) == set(encoder.text.shapes)
    assert 0 <= float(text["logit_scale"]) <= 4.6052


def test_a_sigmoid_model_trains_its_bias_too():
    encoder = create_pico("custom")
    assert "logit_bias" not in encoder.text.shapes
    from sslpurify.encoders.open_clip import open_clip_encoder

    config = dict(pico_clip.VIT) | {"init_logit_bias": -10}
    encoder = open_clip_encoder("open_clip/pico.json", config)
    told = []
    _, text = train_clip(
        encoder,
        encoder.fresh(1),
        encoder.text.fresh(1),
        pairs(),
        QUICK,
        seed=0,
        stage="training",
        listener=told.append,
    )
    assert float(text["logit_bias"]) != -10
    assert all(step.loss > 0 for step in told)


def test_frozen_batchnorm_keeps_its_statistics_and_otherwise_they_are_measured():
    before = create_pico("rn").fresh(1).state_dict()
    frozen, _ = train("rn", changed(frozen_batchnorm=True))
    measured, _ = train("rn")
    names = [name for name in before if "running_" in name]
    assert names
    for name in names:
        assert identical(frozen[name], before[name]), name
        assert not identical(measured[name], before[name]), name


def test_one_pair_beyond_the_last_batch_is_no_batch_of_statistics():
    image, _ = train("rn", pairs=pairs(25))
    assert all(image[name].isfinite().all() for name in image if "running_" in name)


def test_views_are_retouched_with_the_rows_they_are_of():
    seen = []

    def retouch(views, rows):
        seen.append((tuple(views.shape), rows.tolist()))
        assert views.min() >= 0
        assert views.max() <= 1
        return views

    train("vit", retouch=retouch)
    assert all(shape == (8, 3, 32, 32) for shape, _ in seen)
    trained = [row for _, rows in seen[:3] for row in rows]
    assert sorted(trained) == list(range(24))


def test_what_cannot_be_trained_is_said():
    with pytest.raises(DataError, match="24 pairs do not fill one batch of 25"):
        train(settings=changed(batch_size=25))
    with pytest.raises(TrainingError, match=r"training: the loss is nan at step \d of 3") as told:
        train(settings=changed(learning_rate=1e30))
    assert re.search(r"it showed: (image \d+(, )?){8}$", str(told.value))
