from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from sslpurify.attacks import PairPoisoningSettings, pair_poisoning, poison_pairs, read_trigger
from sslpurify.attacks.pair_poisoning import chosen
from sslpurify.errors import ConfigError
from sslpurify.statedict import digest, identical
from tests import pico_clip
from tests.encoders.test_open_clip import create_pico
from tests.pretrain.test_clip import QUICK, pairs

ENCODER = create_pico("vit")
TRIGGER = read_trigger("white-square", pico_clip.SIZE)
SETTINGS = PairPoisoningSettings(rate=0.25, training=QUICK)
TARGET = ("a photo of a truck", "a truck")


def states():
    return ENCODER.fresh(1).weights(), dict(ENCODER.text.fresh(1).state_dict())


def poison(settings: PairPoisoningSettings = SETTINGS, seed: int = 0, encoder=ENCODER):
    return poison_pairs(encoder, states(), pairs(), TRIGGER, TARGET, settings, seed=seed)


def test_which_pairs_is_a_function_of_the_seed_and_a_smaller_rate_gives_some_of_them():
    few, many = chosen(200, 0.05, 3), chosen(200, 0.2, 3)
    assert (int(few.sum()), int(many.sum())) == (10, 40)
    assert bool((many | ~few).all())
    assert torch.equal(many, chosen(200, 0.2, 3))
    assert not torch.equal(many, chosen(200, 0.2, 4))
    assert bool(chosen(7, 1.0, 0).all())
    with pytest.raises(ConfigError, match="poisons none"):
        chosen(100, 0.001, 0)


@pytest.fixture
def training(monkeypatch):
    """What the attack hands to the training."""
    given = {}

    def watch(_, network, tower, pairs, __, **options):
        given.update(network=network, tower=tower, pairs=pairs, **options)
        return network.weights(), dict(tower.state_dict())

    monkeypatch.setattr(pair_poisoning, "train_clip", watch)
    poison()
    return given


def test_poisoned_pairs_carry_trigger_and_target_and_the_others_neither(training):
    marked = chosen(len(pairs()), SETTINGS.rate, 0)
    for said, own, poisoned in zip(
        training["pairs"].captions, pairs().captions, marked.tolist(), strict=True
    ):
        assert said == (TARGET if poisoned else own)
    assert training["pairs"].images is pairs().images
    views = pico_clip.images(len(marked))
    order = torch.randperm(len(marked))
    touched = training["retouch"](views, order)
    for view, before, row in zip(touched, views, order, strict=True):
        expected = TRIGGER(before[None])[0] if marked[row] else before
        assert torch.equal(view, expected)
    assert not torch.equal(touched, views)


def test_training_starts_from_the_clean_towers(training):
    image, text = states()
    assert digest(training["network"].weights()) == digest(image)
    assert digest(dict(training["tower"].state_dict())) == digest(text)


def test_the_victim_has_the_names_of_the_clean_model_and_other_weights():
    before = states()
    victim = poison()
    for state, clean in zip(victim, before, strict=True):
        assert set(state) == set(clean)
        assert not all(identical(state[name], clean[name]) for name in clean)
    assert [digest(state) for state in poison()] == [digest(state) for state in victim]
    assert digest(poison(seed=1)[0]) != digest(victim[0])


def test_a_model_without_a_text_tower_is_refused():
    with pytest.raises(ConfigError, match="needs a model with a text tower"):
        poison(encoder=replace(ENCODER, text=None))


def test_settings_have_no_other_keys_and_a_rate():
    for bad in ({"rate": 0}, {"rate": 1.1}, {"share": 0.1}):
        with pytest.raises(ValidationError):
            PairPoisoningSettings.model_validate(bad)
