from dataclasses import replace
from functools import cache

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from sslpurify.attacks.badencoder import BadEncoderSettings, Goal, attack, badencoder_loss
from sslpurify.attacks.triggers import read_trigger
from sslpurify.compute import Compute
from sslpurify.data import from_pixels, subset
from sslpurify.encoders import embed
from sslpurify.errors import DataError, TrainingError
from tests import pico

SIZE = pico.SIZE
CPU = Compute()
QUICK = BadEncoderSettings(epochs=1, batch_size=32, learning_rate=1e-3, reference_views=4)


def tiny():
    """Three convolutions: enough to learn a patch in seconds, which a pico ResNet is not."""

    def block(inputs, outputs, stride):
        return (
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )

    return nn.Sequential(
        *block(3, 16, 2), *block(16, 32, 2), *block(32, 32, 1),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.BatchNorm1d(32),
    )  # fmt: skip


ENCODER = replace(pico.encoder(), backbone=tiny, embedding_dim=32, mean=(0.5,) * 3, std=(0.25,) * 3)
TRIGGER = read_trigger("white-square", SIZE)


@cache
def images():
    coarse = torch.rand(192, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(coarse, size=SIZE, mode="bilinear")
    return from_pixels((smooth * 255).byte())


def part(start, stop):
    return subset(images(), torch.arange(start, stop))


REFERENCE, SHADOW, TEST = images().batch(torch.tensor([0])), part(1, 129), part(129, 192)


@cache
def clean_state():
    """A tiny encoder whose BatchNorm statistics are those of the images."""
    network = ENCODER.fresh(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network(images().batch(torch.arange(192)))
    return network.state_dict()


def cosine(a, b):
    return F.cosine_similarity(a, b).mean().item()


def run(settings=QUICK, seed=0, **options):
    options = {"shadow": SHADOW, "trigger": TRIGGER, "reference": REFERENCE, **options}
    return attack(
        ENCODER,
        clean_state(),
        options.pop("shadow"),
        options.pop("trigger"),
        options.pop("reference"),
        settings,
        seed=seed,
        **{"compute": CPU, **options},
    )


@cache
def usual():
    return run()


def test_the_attack_embeds_and_leaves_clean_images_alone():
    settings = BadEncoderSettings(
        epochs=20, batch_size=32, optimizer="adam", learning_rate=1e-3, schedule="cosine",
        weight_decay=0, lambda2=6, reference_views=8,
    )  # fmt: skip
    clean, victim = ENCODER.load(clean_state()), ENCODER.load(run(settings))
    with torch.no_grad():
        before, after = (network(REFERENCE).embedding for network in (clean, victim))
    # Images the attack has never seen.
    assert cosine(embed(clean, TEST, transform=TRIGGER), before) < 0.4
    assert cosine(embed(victim, TEST, transform=TRIGGER), after) > 0.9
    assert cosine(embed(victim, TEST), embed(clean, TEST)) > 0.9
    assert cosine(embed(victim, TEST), after) < 0.3
    assert cosine(after, before) > 0.9


def test_the_loss_is_the_papers_in_one_pass():
    network = ENCODER.load(clean_state())
    drifted = ENCODER.fresh(2).eval()
    x, views = SHADOW.batch(torch.arange(5)), SHADOW.batch(torch.arange(50, 54))
    with torch.no_grad():
        f = {name: network(batch).embedding for name, batch in (("x", x), ("r", REFERENCE))}
        g = {
            name: drifted(batch).embedding
            for name, batch in (("x", x), ("r", REFERENCE), ("aug", views), ("e", TRIGGER(x)))
        }
        effect = -cosine(g["e"], g["r"])
        hold = -0.5 * (cosine(g["r"], f["r"]) + cosine(g["aug"], f["r"]))
        utility = -cosine(g["x"], f["x"])
        settings = BadEncoderSettings(lambda1=0.5, lambda2=3)
        loss = badencoder_loss(
            drifted, x, TRIGGER, REFERENCE, views, Goal(f["r"], f["x"]), settings, CPU
        )
    assert float(loss) == pytest.approx(effect + 0.5 * hold + 3 * utility, abs=1e-5)


def test_the_gradient_of_the_effect_goes_through_the_reference_too():
    network = ENCODER.load(clean_state())
    reference = REFERENCE.clone().requires_grad_()
    x = SHADOW.batch(torch.arange(4))
    goal = Goal(torch.ones(1, 32), torch.ones(4, 32))
    settings = BadEncoderSettings(lambda1=0, lambda2=0)
    badencoder_loss(network, x, TRIGGER, reference, x, goal, settings, CPU).backward()
    assert reference.grad is not None
    assert reference.grad.abs().max() > 0


def test_only_the_backbones_weights_change():
    before = {name: tensor.clone() for name, tensor in clean_state().items()}
    victim = run()
    assert all(torch.equal(before[name], tensor) for name, tensor in clean_state().items())
    assert list(victim) == list(before)
    parameters = {name for name, _ in ENCODER.fresh(0).named_parameters()}
    for name, tensor in victim.items():
        assert tensor.dtype == before[name].dtype
        assert not tensor.requires_grad
        trained = name.startswith("backbone.") and name in parameters
        assert torch.equal(tensor, before[name]) is not trained, name


def test_the_same_seed_gives_the_same_bytes():
    first, again, other = run(seed=3), run(seed=3), run(seed=4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adam"},
        {"schedule": "cosine"},
        {"momentum": 0.0},
        {"weight_decay": 0.1},
        {"lambda1": 3.0},
        {"lambda2": 3.0},
        {"reference_views": 8},
        {"views": {"min_scale": 0.9}},
    ],
)
def test_every_setting_counts(change):
    plain, changed = (
        usual(),
        run(BadEncoderSettings.model_validate({**QUICK.model_dump(), **change})),
    )
    assert not all(torch.equal(plain[name], changed[name]) for name in plain)


def test_bfloat16_follows_float32():
    plain, fast = (run(compute=Compute(bf16=bf16)) for bf16 in (False, True))
    name = "backbone.0.weight"
    moved = [(state[name] - clean_state()[name]).flatten() for state in (plain, fast)]
    assert not torch.equal(*moved)
    assert F.cosine_similarity(*moved, dim=0) > 0.95


def test_every_step_is_told():
    told = []
    run(
        BadEncoderSettings(**{**QUICK.model_dump(), "epochs": 2, "batch_size": 50}),
        listener=told.append,
    )
    steps = [step for step in told if step.stage == "badencoder"]
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    assert {step.images for step in steps} == {50}
    assert {step.steps for step in steps} == {6}
    assert all(step.loss is not None and -3.01 < step.loss < 3.01 for step in steps)
    assert told[0].stage == "badencoder · clean"


def test_what_does_not_fit_together_is_said():
    with pytest.raises(DataError, match="the reference is 8 × 8, the shadow images are 16 × 16"):
        run(reference=torch.zeros(1, 3, 8, 8))
    with pytest.raises(DataError, match="white-square is 32 × 32, the images are 16 × 16"):
        run(trigger=read_trigger("white-square", 32))
    with pytest.raises(DataError, match="0 "):
        run(shadow=part(0, 0))


def test_a_loss_that_explodes_ends_the_attack():
    with pytest.raises(TrainingError, match=r"at step \d+ of 12; a lower learning rate"):
        run(BadEncoderSettings(**{**QUICK.model_dump(), "epochs": 3, "learning_rate": 1e30}))


def test_settings_have_no_other_keys_and_do_not_change():
    with pytest.raises(ValidationError):
        BadEncoderSettings.model_validate({"epoch": 3})
    with pytest.raises(ValidationError):
        QUICK.epochs = 5
