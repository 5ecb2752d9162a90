import pytest
from pydantic import ValidationError

from sslpurify.purify import TscSettings, resolved
from sslpurify.purify.workshop import kept_names
from tests import pico


def test_frozen_and_strict():
    with pytest.raises(ValidationError, match="frozen"):
        TscSettings().steps = 3
    with pytest.raises(ValidationError, match="stepz"):
        TscSettings.model_validate({"stepz": 3})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", 0),
        ("groups", "some"),
        ("kept", 1),
        ("kept", -0.1),
        ("steps", 0),
        ("batch_size", 1),
        ("micro_batch", 1),
        ("learning_rate", 0),
        ("weight_decay", -1),
        ("temperature", 0),
        ("pseudo_captions", 0),
        ("t_aligned", 0),
        ("t_misaligned", 1),
        ("match_images", 1),
        ("statistics_images", 1),
        ("profile_points", 1),
        ("profile_images", 1),
        ("head_steps", 0),
        ("finetune_steps", -1),
        ("final_steps", -1),
        ("final_learning_rate", 0),
    ],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(ValidationError, match=name):
        TscSettings.model_validate({name: value})


def test_settings_survive_json():
    settings = TscSettings(steps=7, t_aligned=0.25)
    assert TscSettings.model_validate_json(settings.model_dump_json()) == settings


def test_a_family_decides_what_is_not_set():
    one, other = (resolved(TscSettings(kept=0.5), family) for family in ("resnet", "vit"))
    assert (one.kept, other.kept) == (0.5, 0.5)
    assert one == TscSettings(kept=0.5)
    assert other.final_steps > one.final_steps == 0
    assert resolved(other, "vit") == other
    assert resolved(TscSettings(final_steps=0), "vit").final_steps == 0


def test_without_captions_a_clip_is_not_fine_tuned_afterwards():
    with_, without = (resolved(TscSettings(), "vit", captions=known) for known in (True, False))
    assert with_.final_steps > without.final_steps == 0
    assert with_.final_views is not None
    assert with_.final_views.min_scale > with_.views.min_scale == without.views.min_scale
    assert resolved(without, "vit") == without
    assert resolved(TscSettings(), "resnet", captions=False) == resolved(TscSettings(), "resnet")


@pytest.mark.parametrize(
    ("share", "sections"), [(0, 0), (0.2, 0), (0.25, 1), (0.5, 2), (0.75, 3), (0.99, 3)]
)
def test_kept_is_a_share_of_the_sections_and_never_all(share, sections):
    encoder = pico.encoder()
    names = kept_names(encoder, TscSettings(kept=share))
    assert names == tuple(name for section in encoder.sections[:sections] for name in section)
