from dataclasses import replace
from functools import cache

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from sslpurify.attacks import BadClipSettings, optimize_patch, read_trigger, save_picture
from sslpurify.attacks.badclip import Goal, patch_loss
from sslpurify.attacks.effects import Blend
from sslpurify.attacks.triggers import Trigger
from sslpurify.data import subset
from sslpurify.encoders import embed, embed_captions
from sslpurify.errors import ConfigError, DataError
from sslpurify.statedict import digest
from tests import pico_clip
from tests.encoders.test_open_clip import create_pico
from tests.pretrain.test_clip import pairs

ENCODER = create_pico("vit")
PLACE = read_trigger("white-square", pico_clip.SIZE)
QUICK = BadClipSettings(steps=40, batch_size=8, learning_rate=0.05)
SHORT = QUICK.model_copy(update={"steps": 4})
TARGET = ("a photo of a red thing", "red")  # of rows 2, 5, 8, ...


@cache
def states():
    return ENCODER.fresh(1).weights(), dict(ENCODER.text.fresh(1).state_dict())


def optimize(settings=QUICK, seed=0, place=PLACE, **options):
    shown = subset(pairs().images, torch.arange(2, 24, 3))
    encoder = options.pop("encoder", ENCODER)
    return optimize_patch(
        encoder, states(), pairs(), place, TARGET, shown, settings, seed=seed, **options
    )


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_the_loss_is_the_papers_row_by_row():
    seen, was, said, goal = unit(5, 4), unit(5, 4, seed=1), unit(5, 4, seed=2), unit(1, 4, seed=3)
    images, drawn = unit(3, 4, seed=4), torch.tensor([0, 2, 2, 1, 0])
    own = torch.tensor([False, True, False, False, True])
    settings = BadClipSettings(image_weight=0.7, margin=0.4)
    text, image = [], []
    for row in range(5):
        counter = [said[other] for other in range(5) if not own[other]]
        similar = torch.stack([10 * seen[row] @ each for each in (goal[0], *counter)])
        text.append(-similar.log_softmax(0)[0])
        near, far = ((seen[row] - each).norm() for each in (images[drawn[row]], was[row]))
        image.append((near - far + 0.4).clamp_min(0))
    expected = torch.stack(text).mean() + 0.7 * torch.stack(image).mean()
    found = patch_loss(seen, was, said, own, Goal(goal, images), drawn, 10.0, settings)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_batch_of_the_targets_own_captions_has_a_loss():
    goal = Goal(unit(1, 4), unit(2, 4))
    own, drawn = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.long)
    loss = patch_loss(unit(3, 4), unit(3, 4), unit(3, 4), own, goal, drawn, 10.0, QUICK)
    assert loss.isfinite()


def test_the_patch_pulls_images_that_it_never_saw_to_the_target():
    network = ENCODER.load(states()[0])
    tower = ENCODER.text.load(states()[1])
    unseen = pairs(48).images
    unseen = subset(unseen, torch.arange(24, 48))
    said = embed_captions(tower, ENCODER.text.tokenize, TARGET).mean(0, keepdim=True)

    def similarity(trigger):
        return F.cosine_similarity(embed(network, unseen, transform=trigger), said).mean().item()

    # Untrained towers see little of a patch, but what they see can be turned towards the target.
    random = optimize(BadClipSettings(steps=1, learning_rate=1e-9, batch_size=8))
    plain, before, after = (similarity(trigger) for trigger in (None, random, optimize()))
    assert after > max(plain, before) + 0.02


def test_the_loss_falls():
    told = []
    optimize(listener=told.append)
    losses = [step.loss for step in told if step.stage == "optimizing the patch"]
    assert len(losses) == 40
    assert sum(losses[-5:]) < sum(losses[:5])


def test_only_the_place_of_the_trigger_changes_and_8_bits_hold_it(tmp_path):
    found = optimize(SHORT)
    images = pairs().images.batch(torch.arange(4))
    covered = (PLACE(torch.zeros(1, 3, 32, 32)) > 0)[0]
    attacked = found(images)
    assert torch.equal(attacked[:, ~covered], images[:, ~covered])
    assert torch.equal(attacked[0, covered], attacked[1, covered])
    assert not torch.equal(attacked[:, covered], images[:, covered])
    save_picture(found, tmp_path / "trigger.png")
    again = read_trigger(str(tmp_path / "trigger.png"), 32)
    assert torch.equal(again(images), attacked)
    assert again.digest() == found.digest()


def test_the_same_seed_gives_the_same_patch_and_the_model_stays():
    before = [digest(state) for state in states()]
    first, again, other = optimize(SHORT), optimize(SHORT), optimize(SHORT, seed=1)
    assert first.digest() == again.digest() != other.digest()
    assert [digest(state) for state in states()] == before


@pytest.mark.parametrize("change", [{"image_weight": 9.0}, {"learning_rate": 0.1}, {"steps": 5}])
def test_every_setting_counts(change):
    assert optimize(SHORT.model_copy(update=change)).digest() != optimize(SHORT).digest()


def test_a_place_that_is_no_patch_is_refused():
    for name in ("sig", "wanet", "blended"):
        with pytest.raises(ConfigError, match=rf"trigger {name} is no patch .*middle-square"):
            optimize(place=read_trigger(name, 32))
    with pytest.raises(DataError, match="white-square is 16 × 16, the images are 32 × 32"):
        optimize(place=read_trigger("white-square", 16))
    with pytest.raises(ConfigError, match="needs a model with a text tower"):
        optimize(encoder=replace(ENCODER, text=None))
    with pytest.raises(ValidationError):
        BadClipSettings.model_validate({"step": 3})


def test_only_a_pattern_with_one_mask_is_a_picture(tmp_path):
    mask = torch.rand(3, 8, 8)
    for trigger in (
        read_trigger("sig", 32),
        Trigger("t", 8, Blend(torch.rand(3, 8, 8), mask), "two masks"),
    ):
        with pytest.raises(ValueError, match="no pattern with one mask"):
            save_picture(trigger, tmp_path / "t.png")
    assert not (tmp_path / "t.png").exists()


def test_the_middle_square_is_in_the_middle():
    for size, side in ((32, 4), (224, 16), (33, 4)):
        black = torch.zeros(1, 3, size, size)
        rows = read_trigger("middle-square", size)(black)[0, 0].nonzero()
        assert len(rows) == side**2
        assert abs(int(rows.min()) - (size - 1 - int(rows.max()))) <= 1
