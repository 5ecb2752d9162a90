import colorsys
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.transforms import SimCLRTransform
from PIL import Image
from pydantic import ValidationError
from scipy import stats
from torchvision.transforms import functional as vision

from sslpurify.data.colour import grey
from sslpurify.data.views import ViewSettings, augment, draw, render

NOTHING = ViewSettings(
    min_scale=1, flip_probability=0, jitter_probability=0, grey_probability=0
)  # with a share of 1, only the whole image fits


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    coarse = torch.rand(count, 3, 5, 5, generator=seeded(9))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def test_nothing_changes_nothing():
    images = smooth(6)
    views = augment(images, NOTHING, seeded())
    torch.testing.assert_close(views, images, rtol=0, atol=1e-5)
    assert views.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("shape", [(32, 32), (24, 40)])
def test_a_view_is_torchvisions_slow_pipeline_with_the_same_draws(shape: tuple[int, int]):
    images = smooth(64, *shape)
    choice = ViewSettings(min_scale=0.08, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
    draws = draw(choice, 64, *shape, seeded(3))
    views = render(images, draws)
    kinds = [
        vision.adjust_brightness,
        vision.adjust_contrast,
        vision.adjust_saturation,
        vision.adjust_hue,
    ]
    for i, image in enumerate(images):
        view = vision.resized_crop(image, *draws.box[i].tolist(), list(shape), antialias=True)
        view = vision.hflip(view) if draws.flip[i] else view
        for kind in draws.order[i].tolist() if draws.jitter[i] else []:
            view = kinds[kind](view, float(draws.amounts[i, kind]))
        view = vision.rgb_to_grayscale(view, 3) if draws.grey[i] else view
        torch.testing.assert_close(views[i], view, rtol=0, atol=1e-3)


def lightlys_views(
    image: torch.Tensor, count: int, seed: int = 0, **options: float
) -> torch.Tensor:
    transform = SimCLRTransform(
        input_size=image.shape[-1], gaussian_blur=0, normalize=None, **options
    )
    picture = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.stack([view for _ in range(count // 2) for view in transform(picture)])


def assert_same_distribution(ours: torch.Tensor, theirs: torch.Tensor, name: str) -> None:
    # Two-sample Kolmogorov-Smirnov: its critical value is the tolerance that n allows.
    result = stats.ks_2samp(ours.numpy(), theirs.numpy())
    assert result.pvalue > 1e-4, f"{name}: {result}"


def assert_same_share(ours: torch.Tensor, theirs: torch.Tensor, name: str) -> None:
    n, m = len(ours), len(theirs)
    pooled = (ours.sum() + theirs.sum()) / (n + m)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    assert abs(ours.double().mean() - theirs.double().mean()) < 3.5 * error, name


N = 1000


@pytest.mark.parametrize("min_scale", [0.08, 0.2])
def test_crops_and_flips_are_distributed_as_lightlys(min_scale: float):
    side = 32
    ramp = (torch.arange(side) + 0.5) / side
    image = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side)])
    image = torch.cat([image, torch.full((1, side, side), 0.5)])  # red is x, green is y
    theirs = lightlys_views(image, N, min_scale=min_scale, cj_prob=0, random_gray_scale=0)
    choice = ViewSettings(min_scale=min_scale, jitter_probability=0, grey_probability=0)
    ours = augment(image.expand(N, -1, -1, -1), choice, seeded(1))

    def seen(views: torch.Tensor) -> dict[str, torch.Tensor]:
        x, y = views[:, 0].mean(1), views[:, 1].mean(2)
        width, height = x.amax(1) - x.amin(1), y.amax(1) - y.amin(1)
        # In whole pixels, as crops are; 8-bit rounding would break ties apart.
        return {
            "left": (x.amin(1) * side).floor(),
            "top": (y.amin(1) * side).floor(),
            "width": (width * side).round(),
            "height": (height * side).round(),
            "area": ((width * side).round() + 1) * ((height * side).round() + 1),
            "flipped": x[:, 0] > x[:, -1],
        }

    mine, others = seen(ours), seen(theirs)
    assert_same_share(mine.pop("flipped"), others.pop("flipped"), "flips")
    for name in mine:
        assert_same_distribution(mine[name], others[name], name)


def test_colours_are_distributed_as_lightlys():
    image = smooth(1)[0] * 0.5 + torch.tensor([0.4, 0.2, 0.05]).view(3, 1, 1)
    theirs = lightlys_views(image, N, min_scale=1, cj_strength=0.5, hf_prob=0)
    choice = ViewSettings(min_scale=1, flip_probability=0)
    ours = augment(image.expand(N, -1, -1, -1), choice, seeded(2))

    def is_grey(views: torch.Tensor) -> torch.Tensor:
        return (views.amax(1) - views.amin(1)).amax((1, 2)) < 1e-3

    assert_same_share(is_grey(ours), is_grey(theirs), "grey")
    ours, theirs = (views[~is_grey(views)] for views in (ours, theirs))

    def seen(views: torch.Tensor) -> dict[str, torch.Tensor]:
        mean = views.mean((2, 3))
        hsv = torch.tensor([colorsys.rgb_to_hsv(*pixel) for pixel in mean.tolist()])
        return {
            **{f"mean of {name}": mean[:, c] for c, name in enumerate("rgb")},
            **{f"std of {name}": views.std((2, 3))[:, c] for c, name in enumerate("rgb")},
            "contrast": grey(views).std((1, 2, 3)),
            "saturation": hsv[:, 1],
            "hue": (hsv[:, 0] + 0.5) % 1,
        }

    # Where colours were not changed, all views are equal but for lightly's rounding to 8 bits.
    def changed(views: torch.Tensor) -> torch.Tensor:
        return (views - image).abs().amax((1, 2, 3)) > 0.01

    assert_same_share(changed(ours), changed(theirs), "jitter")
    mine, others = seen(ours[changed(ours)]), seen(theirs[changed(theirs)])
    for name in mine:
        assert_same_distribution(mine[name], others[name], name)


def test_every_draw_has_the_distribution_that_the_settings_say():
    choice = ViewSettings(brightness=1.5, contrast=0.4, saturation=0.3, hue=0.2, min_sigma=0.5)
    draws = draw(choice, 20_000, 32, 24, seeded())
    ranges = [(0, 2.5), (0.6, 1.4), (0.7, 1.3), (-0.2, 0.2), (0.5, 2)]
    drawn = torch.cat([draws.amounts, draws.sigma[:, None]], 1).T.numpy()
    for values, (low, high) in zip(drawn, ranges, strict=True):
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-4
    orders = draws.order @ torch.tensor([64, 16, 4, 1])
    counts = orders.unique(return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4
    for corner, length, side in ((0, 2, 32), (1, 3, 24)):
        room = side - draws.box[:, length]
        place, room = draws.box[room > 0, corner], room[room > 0].double()
        share = 1 / (room + 1)  # of each of the places it can have
        error = (share * (1 - share)).sum().sqrt()
        for edge in (torch.zeros_like(room), room):
            assert abs((place == edge).sum() - share.sum()) < 3.9 * error


def test_views_of_real_looking_images_have_lightlys_mean_and_spread():
    images, count = smooth(24), 40
    theirs = torch.stack(
        [
            lightlys_views(image, count, seed=i, cj_strength=0.5, min_scale=0.2)
            for i, image in enumerate(images)
        ]
    )
    ours = torch.stack([augment(images, ViewSettings(), seeded(s)) for s in range(count)], 1)
    for name, statistic in (
        ("mean", lambda views: views.mean((-1, -2))),
        ("spread", lambda views: views.std((-1, -2))),
    ):
        a, b = statistic(ours), statistic(theirs)
        scores = (a.mean(1) - b.mean(1)) / ((a.var(1) + b.var(1)) / count).sqrt()
        assert scores.abs().max() < 4.5, name  # the largest of 72
        # The mean of 24 independent ones; the three channels of an image move together.
        assert scores.mean().abs() < 3.5 / math.sqrt(len(images)), name


def test_the_hue_of_a_view_turns_by_at_most_the_setting():
    image = torch.tensor([0.7, 0.4, 0.3]).view(1, 3, 1, 1).expand(N, 3, 4, 4)
    choice = ViewSettings(
        jitter_probability=1, grey_probability=0, brightness=0, contrast=0, saturation=0, hue=0.1
    )
    views = augment(image, choice, seeded())[:, :, 0, 0].tolist()
    start = colorsys.rgb_to_hsv(0.7, 0.4, 0.3)
    turned = np.array([colorsys.rgb_to_hsv(*pixel) for pixel in views])
    turns = (turned[:, 0] - start[0] + 0.5) % 1 - 0.5
    assert stats.kstest(turns, stats.uniform(-0.1, 0.2).cdf).pvalue > 1e-3
    np.testing.assert_allclose(turned[:, 1:], np.broadcast_to(start[1:], (N, 2)), atol=1e-5)


def test_same_seed_same_bytes_and_every_image_its_own_draw():
    images = smooth(1).expand(32, -1, -1, -1)
    choice = ViewSettings(blur_probability=0.5)
    draws = seeded(4)
    first, second = augment(images, choice, draws), augment(images, choice, draws)
    assert torch.equal(first, augment(images, choice, seeded(4)))
    everything = torch.cat([first, second, augment(images, choice, seeded(5))])
    assert len({view.numpy().tobytes() for view in everything}) == 96


def test_no_global_randomness_and_no_change_to_the_images():
    images, state = smooth(8), torch.random.get_rng_state()
    before = images.clone()
    views = augment(images.requires_grad_(), ViewSettings(blur_probability=0.5), seeded())
    assert not views.requires_grad
    assert torch.equal(images, before)
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_first_images_of_a_larger_batch_are_drawn_the_same():
    images = smooth(20)
    whole = augment(images, ViewSettings(), seeded())
    part = augment(images[:7], ViewSettings(), seeded())
    torch.testing.assert_close(part, whole[:7], rtol=0, atol=1e-5)


def test_one_setting_changes_no_other_draw():
    plain, other = (
        draw(choice, 50, 32, 32, seeded())
        for choice in (ViewSettings(), ViewSettings(grey_probability=0.9, blur_probability=0.9))
    )
    assert torch.equal(plain.box, other.box)
    assert torch.equal(plain.amounts, other.amounts)
    assert not torch.equal(plain.grey, other.grey)


def test_blur_changes_its_share_of_the_views_alone():
    images = torch.rand(400, 3, 16, 16, generator=seeded())
    choice = NOTHING.model_copy(update={"blur_probability": 0.3})
    blurred = augment(images, choice, seeded(1))
    plain = augment(images, NOTHING, seeded(1))
    chosen = draw(choice, 400, 16, 16, seeded(1)).blur
    assert abs(chosen.double().mean() - 0.3) < 3.5 * math.sqrt(0.3 * 0.7 / 400)
    assert torch.equal(blurred[~chosen], plain[~chosen])
    spread = blurred[chosen].std((1, 2, 3)) / plain[chosen].std((1, 2, 3))
    assert spread.max() <= 1.001
    assert spread.min() < 0.3
    assert (spread < 0.9).double().mean() > 0.7  # sigma in [0.1, 2], nothing below 0.3 shows


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 12),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(0, 2**60),
    st.sampled_from(
        [
            ViewSettings(blur_probability=0.5),
            ViewSettings(min_scale=1e-3, brightness=2, contrast=3, saturation=4, hue=0.5),
            ViewSettings(min_ratio=3, max_ratio=3),
        ]
    ),
)
def test_views_keep_shape_range_and_layout(n: int, h: int, w: int, seed: int, choice: ViewSettings):
    images = torch.rand(n, 3, h, w, generator=seeded(seed)).round(decimals=1)
    views = augment(images.to(memory_format=torch.channels_last), choice, seeded(seed))
    assert views.shape == images.shape
    assert views.dtype == torch.float32
    assert views.is_contiguous()
    assert 0 <= views.min() <= views.max() <= 1
    box = draw(choice, n, h, w, seeded(seed)).box
    assert (box[:, :2] >= 0).all()
    assert (box[:, 2:] >= 1).all()
    assert (box[:, :2] + box[:, 2:] <= torch.tensor([h, w])).all()


def test_large_images_work_too():
    views = augment(smooth(2, 224, 224), ViewSettings(blur_probability=1), seeded())
    assert views.shape == (2, 3, 224, 224)


def test_settings_are_frozen_checked_and_closed():
    small_images = {"min_scale": 0.2, "brightness": 0.4, "hue": 0.1, "blur_probability": 0.0}
    assert small_images.items() <= ViewSettings().model_dump().items()
    with pytest.raises(ValidationError, match="frozen"):
        ViewSettings().hue = 0.2  # pyright: ignore[reportAttributeAccessIssue]
    for wrong, message in (
        ({"hue": 0.6}, "hue"),
        ({"min_scale": 0}, "min_scale"),
        ({"min_scale": 0.5, "max_scale": 0.4}, "min_scale 0.5 is above max_scale 0.4"),
        ({"brightness": float("nan")}, "brightness"),
        ({"flip": 0.5}, "Extra inputs"),
    ):
        with pytest.raises(ValidationError, match=message):
            ViewSettings.model_validate(wrong)


@pytest.mark.parametrize("span", [slice(0, 3), slice(3, 8), slice(4, 4)])
def test_the_views_of_some_images_are_those_of_the_whole_batch(span):
    """Of images that others see as well: the blur looks as far as the whole batch needs."""
    images = smooth(8, 24, 24)
    draws = draw(ViewSettings(blur_probability=0.7), 8, 24, 24, seeded(3))
    assert len({float(s) for s in draws.sigma[draws.blur].mul(3).ceil()}) > 1
    whole, part = render(images, draws), render(images[span], draws.rows(span))
    torch.testing.assert_close(part, whole[span], rtol=0, atol=1e-6)
