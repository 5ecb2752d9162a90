import numpy as np
import pytest
import torch
from PIL import Image

from sslpurify.attacks.effects import Blend
from sslpurify.attacks.triggers import read_reference, read_trigger
from sslpurify.errors import DataError

PUBLIC = [
    ("trigger_pt_white_21_10_ap_replace.npz", 32, (21, 31)),
    ("trigger_pt_white_173_50_ap_replace.npz", 224, (173, 223)),
    ("trigger_pt_white_185_24.npz", 224, (185, 209)),  # without the leading axis of targets
]


def images(size, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, size, size), generator=generator) / 255


def patch(size=16, start=4, stop=8, targets=None):
    """t and tm as BadEncoder writes them: tm is 1 where the image is kept."""
    t, tm = np.zeros((size, size, 3)), np.ones((size, size, 3))
    t[start:stop, start:stop] = (255, 0, 51)
    tm[start:stop, start:stop] = 0
    if targets is None:
        return t, tm
    return np.stack([t] * targets), np.stack([tm] * targets)


@pytest.mark.parametrize(("name", "size", "span"), PUBLIC)
def test_the_public_triggers_do_what_badencoder_does_with_them(public_files, name, size, span):
    trigger = read_trigger(str(public_files / name), size)
    clean = images(size)
    attacked = trigger(clean)

    with np.load(public_files / name, allow_pickle=False) as file:
        t, tm = (file[key].reshape(-1, size, size, 3)[0] for key in ("t", "tm"))
    pixels = (clean * 255).round().permute(0, 2, 3, 1).numpy()
    expected = torch.from_numpy((pixels * tm + t) / 255).permute(0, 3, 1, 2).float()
    torch.testing.assert_close(attacked, expected, atol=1e-6, rtol=0)

    inside = (..., slice(*span), slice(*span))
    assert (attacked[inside] == 1).all()
    outside = torch.ones(size, size, dtype=torch.bool)
    outside[inside] = False
    assert torch.equal(attacked[..., outside], clean[..., outside])


@pytest.mark.parametrize(("name", "size", "_span"), PUBLIC[:2])
def test_the_built_in_white_square_is_the_public_one(public_files, name, size, _span):
    public, built_in = (
        read_trigger(str(public_files / name), size),
        read_trigger("white-square", size),
    )
    assert torch.equal(public(images(size)), built_in(images(size)))


def test_a_public_trigger_is_never_resized(public_files):
    with pytest.raises(DataError, match=r"t is 32 × 32, but the encoder's images are 224 × 224"):
        read_trigger(str(public_files / PUBLIC[0][0]), 224)


def test_a_soft_mask_is_applied_as_image_times_tm_plus_t(tmp_path):
    generator = np.random.default_rng(0)
    tm = generator.random((16, 16, 3))
    t = 255 * (1 - tm) * generator.random((16, 16, 3))
    np.savez(tmp_path / "soft.npz", t=t, tm=tm)
    clean = images(16)
    kept, added = (torch.from_numpy(a).permute(2, 0, 1).float() for a in (tm, t / 255))
    found = read_trigger(str(tmp_path / "soft.npz"), 16)(clean)
    torch.testing.assert_close(found, clean * kept + added, atol=1e-5, rtol=0)


def test_the_index_chooses_among_targets(tmp_path):
    t, tm = patch(targets=2)
    t[1], tm[1] = 0, 1
    t[1, 0, 0], tm[1, 0, 0] = 255, 0
    np.savez(tmp_path / "two.npz", t=t, tm=tm)
    first, second = (read_trigger(str(tmp_path / "two.npz"), 16, index) for index in (0, 1))
    grey = torch.full((1, 3, 16, 16), 0.5)
    assert int((first(grey) != grey).any(1).sum()) == 16
    assert int((second(grey) != grey).any(1).sum()) == 1
    assert first.digest() != second.digest()
    with pytest.raises(DataError, match="holds 2, counted from 0: there is no index 2"):
        read_trigger(str(tmp_path / "two.npz"), 16, 2)
    with pytest.raises(DataError, match="no index -1"):
        read_trigger(str(tmp_path / "two.npz"), 16, -1)


def test_an_inverted_mask_is_refused(tmp_path):
    t, tm = patch()
    np.savez(tmp_path / "a.npz", t=t, tm=1 - tm)
    with pytest.raises(DataError, match=r"a\.npz: t adds to the image where tm keeps it"):
        read_trigger(str(tmp_path / "a.npz"), 16)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t, tm: (t + 1, tm), "outside 0 to 255"),
        (lambda t, tm: (-t, tm), "outside 0 to 255"),
        (lambda t, tm: (t * np.nan, tm), "outside 0 to 255"),
        (lambda t, tm: (t, tm + 0.5), "tm has values outside"),
        (lambda t, tm: (t, tm * np.nan), "tm has values outside"),
        (lambda t, tm: (t[..., :2], tm), "height, width, channels"),
        (lambda t, tm: (t, tm[..., 0]), "height, width, channels"),
        (lambda t, tm: (t, tm[:8]), "tm is 8 × 16"),
        (lambda t, tm: (t * 0, tm * 0 + 1), "changes no image"),
        (lambda t, tm: (t, tm * 0), "hides the whole image"),
    ],
)
def test_what_is_no_trigger_is_said(tmp_path, change, reason):
    t, tm = change(*patch())
    np.savez(tmp_path / "a.npz", t=t, tm=tm)
    with pytest.raises(DataError, match=reason):
        read_trigger(str(tmp_path / "a.npz"), 16)


def test_a_mask_of_one_channel_covers_all_three(tmp_path):
    t, tm = patch()
    np.savez(tmp_path / "one.npz", t=t, tm=tm[..., :1])
    np.savez(tmp_path / "three.npz", t=t, tm=tm)
    one, three = (read_trigger(str(tmp_path / f"{name}.npz"), 16) for name in ("one", "three"))
    assert torch.equal(one(images(16)), three(images(16)))


def test_built_in_triggers_lie_where_they_should():
    black = torch.zeros(1, 3, 32, 32)
    grey = torch.full((1, 3, 32, 32), 0.5)
    changed = {
        name: (read_trigger(name, 32)(grey) != 0.5).any(dim=1)[0].nonzero()
        for name in ("white-square", "corner-patch", "badnets", "blended")
    }
    spans = {name: (rows.min().item(), rows.max().item()) for name, rows in changed.items()}
    assert spans == {
        "white-square": (21, 30),
        "corner-patch": (1, 5),
        "badnets": (28, 30),
        "blended": (0, 31),
    }
    assert {name: len(rows) for name, rows in changed.items()} == {
        "white-square": 100,
        "corner-patch": 25,
        "badnets": 9,
        "blended": 1024,
    }
    corner = read_trigger("corner-patch", 32)(black)[0, :, 1, 1:3]
    assert corner.tolist() == [[1, 0], [0, 1], [1, 0]]  # magenta, then green
    large = torch.full((1, 3, 224, 224), 0.5)
    assert (read_trigger("corner-patch", 224)(large) != large)[0, 0].nonzero().amax().item() == 35


def test_the_blended_trigger_is_the_same_noise_every_time():
    first, second = read_trigger("blended", 32), read_trigger("blended", 32)
    black, white = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
    assert torch.equal(first(black), second(black))
    assert (first(black) / 0.2).std() > 0.25
    torch.testing.assert_close(first(white) - first(black), torch.full_like(white, 0.8))
    assert first.digest() == second.digest() != read_trigger("wanet", 32).digest()


def test_unknown_names_and_missing_files_are_said(tmp_path):
    with pytest.raises(DataError, match="there are white-square, corner-patch, badnets, blended"):
        read_trigger("white-squre", 32)
    for suffix in ("npz", "png", "yaml"):
        with pytest.raises(DataError, match=f"nowhere.{suffix}"):
            read_trigger(str(tmp_path / f"nowhere.{suffix}"), 32)
    with pytest.raises(DataError, match="too small"):
        read_trigger("white-square", 4)
    with pytest.raises(DataError, match="only an npz file holds several"):
        read_trigger("white-square", 32, 1)


def test_a_trigger_says_when_images_are_of_another_size():
    with pytest.raises(DataError, match="white-square is 32 × 32, the images are 16 × 16"):
        read_trigger("white-square", 32)(images(16))


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_values_outside_the_unit_interval_are_no_trigger(value):
    good, bad = torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)
    bad[0, 0, 0] = value
    with pytest.raises(DataError, match="pattern has values outside"):
        Blend(bad, good)
    with pytest.raises(DataError, match="mask has values outside"):
        Blend(good, bad)


@pytest.mark.parametrize("name", ["blended", "sig", "wanet", "frequency"])
def test_a_trigger_keeps_type_and_image(name):
    for dtype in (torch.float16, torch.float64):
        clean = images(32).to(dtype)
        kept = clean.clone()
        attacked = read_trigger(name, 32)(clean)
        assert attacked.dtype == dtype
        assert attacked.data_ptr() != clean.data_ptr()
        assert torch.equal(clean, kept)


def test_its_picture_shows_it_on_grey():
    picture = read_trigger("white-square", 32).picture
    assert picture.shape == (3, 32, 32)
    assert picture.unique().tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("name", "size"), [("cifar10_truck", 32), ("stl10_airplane", 32), ("clip_stop", 224)]
)
def test_the_public_references_are_read_as_they_are(public_files, name, size):
    path = public_files / f"reference_{name}.npz"
    with np.load(path, allow_pickle=False) as file:
        pixels = torch.from_numpy(file["x"][0])
    reference = read_reference(str(path), size)
    assert reference.shape == (1, 3, size, size)
    assert torch.equal((reference[0] * 255).round().byte().permute(1, 2, 0), pixels)
    with pytest.raises(DataError, match=f"x is {size} × {size}, but the encoder's images are 96"):
        read_reference(str(path), 96)


def test_a_reference_may_be_floating_point(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3))
    np.savez(tmp_path / "bytes.npz", x=pixels.astype(np.uint8))
    np.savez(tmp_path / "unit.npz", x=(pixels / 255).astype(np.float32)[1])
    np.savez(tmp_path / "float.npz", x=pixels.astype(np.float64))
    expected = read_reference(str(tmp_path / "bytes.npz"), 16, 1)
    torch.testing.assert_close(read_reference(str(tmp_path / "unit.npz"), 16), expected)
    torch.testing.assert_close(read_reference(str(tmp_path / "float.npz"), 16, 1), expected)
    assert not torch.equal(read_reference(str(tmp_path / "bytes.npz"), 16, 0), expected)


def test_a_reference_may_be_a_picture_of_any_size(tmp_path):
    Image.new("RGB", (40, 30), (255, 51, 0)).save(tmp_path / "r.png")
    reference = read_reference(str(tmp_path / "r.png"), 16)
    assert reference.shape == (1, 3, 16, 16)
    torch.testing.assert_close(reference[0, :, 3, 3], torch.tensor([1, 0.2, 0]))
    with pytest.raises(DataError, match="only an npz file"):
        read_reference(str(tmp_path / "r.png"), 16, 1)
    with pytest.raises(DataError, match=r"none\.png"):
        read_reference(str(tmp_path / "none.png"), 16)
