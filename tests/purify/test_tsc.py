import json
from itertools import groupby

import pytest
import torch

from sslpurify.compute import PLAIN
from sslpurify.curves import reestimate
from sslpurify.data import from_pixels
from sslpurify.encoders import CleanSet, by_views
from sslpurify.errors import DataError, TrainingError
from sslpurify.journal import FORGETFUL
from sslpurify.purify import Purified, TscSettings, permuted_groups, purify
from sslpurify.purify.tsc import _fine_tune, _fit_head
from sslpurify.purify.workshop import Workshop
from sslpurify.statedict import digest, identical
from sslpurify.types import silent
from tests import pico

ENCODER = pico.encoder()
HEAD = "projection_head."
COUNT = 20
IMAGES = from_pixels(
    torch.randint(
        0, 256, (COUNT, 3, pico.SIZE, pico.SIZE), generator=torch.Generator().manual_seed(0)
    ).to(torch.uint8)
)
FULL = TscSettings(**{**pico.QUICK, "profile_points": 3}, rounds=2, finetune_steps=3, kept=0.5)
SMALL = FULL.model_copy(update={"rounds": 1, "steps": 1, "profile_points": 2, "head_steps": 1})


def with_head() -> dict[str, torch.Tensor]:
    return pico.state(1)


def headless() -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in pico.state(1).items() if not name.startswith(HEAD)}


def run(state, settings=SMALL, **options) -> Purified:
    return purify(ENCODER, state, IMAGES, settings, **options)


def changed(settings: TscSettings, **values: object) -> TscSettings:
    return settings.model_copy(update=values)


def clean(settings: TscSettings, seed: int) -> CleanSet:
    guide = by_views(settings.temperature)
    return CleanSet(IMAGES, guide, settings.views, settings.batch_size, None, seed, PLAIN)


def workshop(settings: TscSettings, seed: int = 0) -> Workshop:
    return Workshop(ENCODER, clean(settings, seed), settings, PLAIN, FORGETFUL, silent)


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def purified(told) -> Purified:
    """Two rounds on a published encoder, whose projection head is missing."""
    return run(headless(), FULL, seed=3, listener=told.append)


@pytest.fixture(scope="module")
def once() -> Purified:
    """One round on an encoder that has its head."""
    return run(with_head())


class TestState:
    def test_the_same_seed_gives_the_same_bytes(self, purified):
        torch.manual_seed(12345)
        assert digest(run(headless(), FULL, seed=3).state) == digest(purified.state)

    def test_another_seed_gives_others(self, once):
        assert digest(run(with_head(), seed=1).state) != digest(once.state)

    @pytest.mark.parametrize("given", [with_head, headless])
    def test_what_is_given_is_not_changed_and_comes_back_in_kind(self, given):
        state = given()
        before = digest(state)
        torch.manual_seed(7)
        expected = torch.rand(2)
        torch.manual_seed(7)
        result = run(state).state
        assert digest(state) == before != digest(result)
        assert torch.equal(torch.rand(2), expected), "the global generator was used"
        assert list(result) == list(state)
        for name, tensor in state.items():
            assert (result[name].dtype, result[name].shape) == (tensor.dtype, tensor.shape), name
            assert result[name].isfinite().all(), name
            assert result[name].is_contiguous(), name

    def test_kept_sections_stay_bit_for_bit_and_the_others_do_not(self, once):
        state, result = with_head(), once.state
        kept = ("backbone.conv1.", "backbone.bn1.", "backbone.layer1.", "backbone.layer2.")
        for name, tensor in state.items():
            if name.startswith(kept):
                assert identical(result[name], tensor), name
            elif name.startswith("backbone."):
                assert not identical(result[name], tensor), name

    def test_the_head_is_a_ruler_whose_weights_stay(self, once):
        state, result = with_head(), once.state
        parameters = dict(ENCODER.fresh(0).named_parameters())
        names = [name for name in parameters if name.startswith(HEAD)]
        assert len(names) == 6
        assert all(identical(result[name], state[name]) for name in names)

    def test_statistics_are_measured_at_the_point_that_is_taken(self, once):
        network = ENCODER.load(once.state)
        statistics = clean(SMALL, 0).statistics(SMALL.statistics_images)
        reestimate(network, statistics, kept=workshop(SMALL).kept(network))
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                torch.testing.assert_close(once.state[name], tensor, rtol=1e-5, atol=1e-6)

    def test_without_learning_the_result_is_a_mixture_of_permuted_copies(self):
        """Then the curve is a straight line: sums over permuted axes stay, the units do not."""
        state = with_head()
        settings = changed(SMALL, kept=0.0, learning_rate=1e-12)
        result = run(state, settings).state
        touched = {t.name for g in permuted_groups(ENCODER, settings).groups for t in g.touches}
        for name, tensor in state.items():
            if not tensor.is_floating_point() or "running" in name or tensor.ndim != 4:
                continue
            torch.testing.assert_close(
                result[name].sum((0, 1)), tensor.sum((0, 1)), rtol=1e-4, atol=1e-4
            )
            moved = float((result[name] - tensor).abs().max())
            assert (moved > 1e-3) == (name in touched), name


class TestTrace:
    def test_rounds_of_two_curves_with_fine_tuning_between_them(self, purified):
        kinds = [stage.kind for stage in purified.stages]
        assert kinds == ["head", "curve", "curve", "finetune", "curve", "curve"]

    def test_a_head_is_fitted_only_where_there_is_none(self, once):
        assert [stage.kind for stage in once.stages] == ["curve", "curve"]

    def test_fine_tuning_can_be_left_out(self):
        result = run(with_head(), changed(SMALL, rounds=2, finetune_steps=0))
        assert [stage.kind for stage in result.stages] == ["curve"] * 4

    def test_every_stage_says_what_happened(self, purified):
        assert FULL.t_misaligned != FULL.t_aligned
        groups = {group.name for group in permuted_groups(ENCODER, FULL).groups}
        assert len(groups) == 4
        for stage in purified.stages:
            assert stage.seconds > 0
            assert all(loss > 0 for loss in stage.loss)
            if stage.kind != "curve":
                assert (stage.t, stage.profile, dict(stage.displacement)) == (None, None, {})
                continue
            taken = FULL.t_misaligned if stage.name.endswith("stage 1") else FULL.t_aligned
            assert stage.t == stage.profile.chosen == taken
            assert [point.t for point in stage.profile.points] == [0, 0.5, 1]
            assert set(stage.displacement) == groups
            for point in stage.profile.points:
                assert point.loss > 0
                assert -1 <= point.agreement <= 1
                assert 0 <= point.overlap <= 1
        first = purified.stages[1]
        assert min(first.displacement.values()) > 0
        assert first.profile.points[0].agreement > first.profile.points[1].agreement

    def test_the_names_tell_round_and_stage(self, purified):
        assert [stage.name for stage in purified.stages] == [
            "projection head",
            "round 1 · stage 1",
            "round 1 · stage 2",
            "round 2 · fine-tuning",
            "round 2 · stage 1",
            "round 2 · stage 2",
        ]

    def test_it_is_plain_data(self, purified):
        data = [stage.to_json() for stage in purified.stages]
        again = json.loads(json.dumps(data))
        assert again[1]["profile"]["points"][0]["t"] == 0
        assert again[1]["displacement"] == dict(purified.stages[1].displacement)

    def test_the_listener_is_told_every_step_in_order(self, purified, told):
        steps = [step for step in told if step.steps]
        stages = [(name, list(some)) for name, some in groupby(steps, lambda step: step.stage)]
        parts = ("misaligning", "stage 1", "stage 1 · profile")
        parts += ("aligning", "stage 2", "stage 2 · profile")
        one, two = ([f"round {number} · {part}" for part in parts] for number in (1, 2))
        names = ["projection head", *one, "round 2 · fine-tuning", *two]
        assert [name for name, _ in stages] == names
        for name, steps in stages:
            count = len(steps)
            assert [(step.step, step.steps) for step in steps] == [
                (number, count) for number in range(1, count + 1)
            ], name
        counts = {name: len(steps) for name, steps in stages}
        assert counts["round 1 · stage 1"] == FULL.steps
        assert counts["round 2 · fine-tuning"] == FULL.finetune_steps
        assert counts["projection head"] == FULL.head_steps
        assert counts["round 1 · aligning"] == 2  # 16 images, 8 at a time
        assert counts["round 1 · stage 2 · profile"] == FULL.profile_points
        seen = [step.loss for step in told if step.stage == "round 1 · stage 1"]
        assert purified.stages[1].loss == (seen[0], seen[-1])


class TestParts:
    def test_the_backbone_is_untouched_while_the_head_is_fitted(self):
        settings = changed(SMALL, head_steps=3, head_learning_rate=0.1)
        state = _fit_head(workshop(settings, seed=5), headless()).weights
        assert all(identical(state[name], tensor) for name, tensor in headless().items())
        blank = ENCODER.fresh(5).state_dict()
        fitted = [name for name in state if name.startswith(HEAD)]
        assert len(fitted) == 12
        assert not any(identical(state[name], blank[name]) for name in fitted)

    def test_fitting_the_head_lowers_the_loss(self):
        settings = changed(SMALL, head_steps=15, head_learning_rate=0.01)
        (stage,) = _fit_head(workshop(settings), headless()).stages
        assert stage.loss[1] < stage.loss[0]

    def test_fine_tuning_trains_what_a_curve_trains(self):
        state = with_head()
        settings = changed(SMALL, kept=0.5)
        tuned = _fine_tune(workshop(settings), state, "tuning", 1, 0.01).weights
        parameters = [name for name, _ in ENCODER.fresh(0).named_parameters()]
        moved = {name for name in parameters if not identical(tuned[name], state[name])}
        deep = ("backbone.layer3.", "backbone.layer4.")
        assert moved == {name for name in parameters if name.startswith(deep)}

    def test_groups_are_those_of_the_settings_outside_the_kept_sections(self):
        def kinds(**values: object) -> list[str]:
            settings = changed(SMALL, **values)
            return [group.kind for group in permuted_groups(ENCODER, settings).groups]

        assert kinds(groups="inner", kept=0.0) == ["inner"] * 8
        assert kinds(groups="inner", kept=0.5) == ["inner"] * 4
        assert sorted(kinds(groups="all", kept=0.0)) == ["inner"] * 8 + ["residual"] * 3
        assert sorted(kinds(groups="all", kept=0.5)) == ["inner"] * 4 + ["residual"]

    def test_residual_streams_are_permuted_when_asked_for(self):
        result = run(with_head(), changed(SMALL, groups="all", kept=0.0))
        assert "layer2.0" in result.stages[0].displacement


class TestErrors:
    def test_too_few_images(self):
        with pytest.raises(DataError, match="20 clean images are too few: a batch takes 21"):
            run(with_head(), changed(SMALL, batch_size=21))

    def test_a_training_that_diverges(self):
        with pytest.raises(TrainingError, match="round 1 · stage 1: the loss is nan at step"):
            run(with_head(), changed(SMALL, steps=3, learning_rate=1e30))

    def test_weights_that_are_not_finite(self):
        state = with_head()
        state["backbone.layer3.0.conv1.weight"][0, 0, 0, 0] = float("nan")
        with pytest.raises(TrainingError, match="not finite"):
            run(state)
