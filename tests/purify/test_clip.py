from functools import cache

import pytest
import torch

from sslpurify.checkpoint import new
from sslpurify.data import ViewSettings, from_pixels
from sslpurify.encoders import Captions, Prompts, embed_captions, extract, locate
from sslpurify.purify import TscSettings, purify
from sslpurify.statedict import digest, identical
from tests import pico, pico_clip
from tests.encoders.test_open_clip import create_pico

QUICK = TscSettings(**pico.QUICK, kept=0)
COUNT = 16
KINDS = ["rn", "vit"]
TEXTS = ["captions", "prompts", "none"]


@cache
def state(kind: str) -> dict[str, torch.Tensor]:
    tensors = pico_clip.state(kind)
    return extract(new(tensors), locate(tensors, create_pico(kind), []))


@cache
def words() -> torch.Tensor:
    encoder = create_pico("vit")
    tower = encoder.text.load(encoder.text.fresh(0).state_dict())
    return embed_captions(tower, encoder.text.tokenize, ["a dog", "a cat", "a truck", "blue"])


def text(name: str, bias: float | None = None) -> Captions | Prompts | None:
    choices = torch.arange(COUNT)[:, None] % 4
    return {
        "captions": Captions(words(), choices, 14.0, bias),
        "prompts": Prompts(words(), 14.0),
        "none": None,
    }[name]


def run(kind: str, given: Captions | Prompts | None, settings: TscSettings = QUICK, **options):
    images = from_pixels((pico_clip.images(COUNT) * 255).byte())
    return purify(create_pico(kind), state(kind), images, settings, text=given, **options)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_of_the_tower_and_no_other_comes_back(kind, name):
    before, result = state(kind), run(kind, text(name))
    assert list(result.state) == list(before)
    for tensor, old in zip(result.state.values(), before.values(), strict=True):
        assert (tensor.dtype, tensor.shape) == (old.dtype, old.shape)
        assert tensor.isfinite().all()
    moved = [n for n, old in before.items() if not identical(result.state[n], old)]
    assert len(moved) > 0.8 * len([n for n in before if "num_batches" not in n])
    kinds = [stage.kind for stage in result.stages]
    assert kinds == (["head"] if name == "none" else []) + ["curve", "curve"]


def test_a_last_fine_tuning_follows_the_last_round():
    settings = QUICK.model_copy(update={"final_steps": 2})
    plain, tuned = run("vit", text("captions")), run("vit", text("captions"), settings)
    assert [stage.kind for stage in tuned.stages] == ["curve", "curve", "finetune"]
    assert digest(plain.state) != digest(tuned.state)
    whole = ViewSettings(min_scale=1, jitter_probability=0, grey_probability=0)
    other = run("vit", text("captions"), settings.model_copy(update={"final_views": whole}))
    assert other.stages[1].loss == tuned.stages[1].loss  # the curves are as they were
    assert digest(other.state) != digest(tuned.state)


def test_the_same_seed_gives_the_same_bytes():
    one, two, other = (digest(run("vit", text("captions"), seed=seed).state) for seed in (0, 0, 1))
    assert one == two != other


def test_the_text_decides_the_result():
    results = {digest(run("vit", text(name)).state) for name in TEXTS}
    results.add(digest(run("vit", text("captions", bias=-10.0)).state))
    assert len(results) == 4


def test_micro_batches_change_little_where_there_is_no_batchnorm():
    """Views are drawn by micro-batch, so these leave nothing to be drawn."""
    plain = {
        "min_scale": 1,
        "min_ratio": 1,
        "max_ratio": 1,
        "flip_probability": 0,
        "jitter_probability": 0,
        "grey_probability": 0,
    }
    settings = TscSettings(**pico.QUICK | {"steps": 3}, kept=0, views=plain)
    whole = run("vit", text("captions"), settings)
    parts = run("vit", text("captions"), settings.model_copy(update={"micro_batch": 3}))
    for name, tensor in whole.state.items():
        torch.testing.assert_close(parts.state[name], tensor, rtol=1e-3, atol=1e-3)
    assert parts.stages[0].loss == pytest.approx(whole.stages[0].loss, rel=1e-4)


def test_captions_keep_what_is_asked_to_be_kept():
    settings = QUICK.model_copy(update={"kept": 0.5})
    for kind in KINDS:
        encoder, result = create_pico(kind), run(kind, text("captions"), settings).state
        sections = encoder.sections[: len(encoder.sections) // 2]
        kept = tuple(name for section in sections for name in section)
        shallow = [
            name
            for name in result
            if name in kept or name.startswith(tuple(f"{entry}." for entry in kept))
        ]
        assert shallow
        assert all(identical(result[name], state(kind)[name]) for name in shallow)
        assert not all(identical(result[name], state(kind)[name]) for name in result)
