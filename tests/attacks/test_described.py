import os

import numpy as np
import pytest
import torch
from PIL import Image

from sslpurify.attacks import BUILT_IN
from sslpurify.attacks.triggers import read_trigger
from sslpurify.errors import DataError, UnsafeInputError

GREY = torch.full((1, 3, 16, 16), 0.5)


def describe(tmp_path, text, size=16):
    path = tmp_path / "trigger.yaml"
    path.write_text(text, "utf-8")
    return read_trigger(str(path), size)


def picture(path, size=(4, 4), color=(255, 0, 51, 255), mode="RGBA"):
    Image.new(mode, size, color).save(path)


def test_a_patch(tmp_path):
    found = describe(
        tmp_path, "{kind: patch, rows: [2, 4], columns: [5, 5], color: [1, 0, 0.2], alpha: 0.5}"
    )(GREY)
    expected = GREY.clone()
    expected[0, :, 2:5, 5:6] = torch.tensor([0.75, 0.25, 0.35]).view(3, 1, 1)
    torch.testing.assert_close(found, expected)


def test_the_patch_of_the_design_is_the_white_square(tmp_path):
    described = describe(
        tmp_path, "{kind: patch, rows: [21, 30], columns: [21, 30], color: [1,1,1]}", 32
    )
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(described(images), read_trigger("white-square", 32)(images))


def test_a_checker(tmp_path):
    found = describe(tmp_path, "{kind: checker, rows: [0, 3], columns: [0, 3], cell: 2}")(GREY)
    row = [0.0, 0.0, 1.0, 1.0]
    assert found[0, 0, :4, :4].tolist() == [row, row, row[::-1], row[::-1]]
    assert (found[0, 0, 4:] == 0.5).all()


@pytest.mark.parametrize(
    "patch", ["kind: patch, color: [1, 0, 0.2]", "kind: checker, colors: [[1, 0, 1], [0, 1, 0]]"]
)
def test_a_patch_may_lie_at_a_place_of_its_own_on_each_image(tmp_path, patch):
    still = describe(tmp_path, f"{{{patch}, rows: [3, 5], columns: [7, 8]}}")
    loose = describe(tmp_path, f"{{{patch}, rows: [3, 5], columns: [7, 8], place: random}}")
    images = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    eight = (images * 255).round() / 255
    seen, patches = loose(eight), still(eight)[:, :, 3:6, 7:9]
    places = []
    for image, plain, expected in zip(seen, eight, patches, strict=True):
        rows, columns = (image != plain).any(0).nonzero().unbind(1)
        top, left = int(rows.min()), int(columns.min())
        assert (int(rows.max()), int(columns.max())) == (top + 2, left + 1)
        assert torch.equal(image[:, top : top + 3, left : left + 2], expected)
        places.append((top, left))
    assert len(set(places)) > 40  # of 14 * 15
    assert {0, 13} <= {top for top, _ in places}
    assert {0, 14} <= {left for _, left in places}
    assert torch.equal(loose(eight[5:6]), seen[5:6])  # whatever lies beside it
    assert (loose(images) - seen).abs().max() < 0.51 / 255  # also before it was rounded


def test_noise_is_a_function_of_its_seed(tmp_path):
    first = describe(tmp_path, "{kind: noise, seed: 1, alpha: 0.1}")
    assert torch.equal(first(GREY), describe(tmp_path, "{kind: noise, seed: 1, alpha: 0.1}")(GREY))
    assert not torch.equal(
        first(GREY), describe(tmp_path, "{kind: noise, seed: 2, alpha: 0.1}")(GREY)
    )
    assert (first(GREY) - GREY).abs().max() <= 0.05


def test_a_picture_is_placed(tmp_path):
    picture(tmp_path / "p.png", (3, 2))
    found = describe(tmp_path, "{kind: image, file: p.png, position: [14, 1]}")(GREY)
    assert (found[0, :, 14:16, 1:4] == torch.tensor([1, 0, 0.2]).view(3, 1, 1)).all()
    assert (found != 0.5).any(dim=1).sum() == 6


def test_a_picture_is_blended(tmp_path):
    picture(tmp_path / "p.png", (16, 16), (255, 255, 255), "RGB")
    found = describe(tmp_path, "{kind: image, file: p.png, alpha: 0.2}")(GREY)
    torch.testing.assert_close(found, torch.full_like(GREY, 0.6))


def test_a_bare_picture_shows_the_image_where_it_is_transparent(tmp_path):
    pixels = np.zeros((16, 16, 4), dtype=np.uint8)
    pixels[:4, :8] = (255, 0, 0, 255)
    pixels[4:, :8] = (0, 0, 255, 51)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    found = read_trigger(str(tmp_path / "p.png"), 16)(GREY)[0]
    assert found[:, 0, 0].tolist() == [1, 0, 0]
    torch.testing.assert_close(found[:, 9, 0], torch.tensor([0.4, 0.4, 0.6]))
    assert found[:, 9, 9].tolist() == [0.5] * 3


def test_a_bare_picture_must_have_the_images_size(tmp_path):
    picture(tmp_path / "p.png", (4, 3))
    with pytest.raises(DataError, match=r"p\.png is 3 × 4, but the encoder's images are 16 × 16"):
        read_trigger(str(tmp_path / "p.png"), 16)


def test_an_opaque_picture_would_hide_every_image(tmp_path):
    picture(tmp_path / "p.png", (16, 16), (9, 9, 9), "RGB")
    with pytest.raises(DataError, match=r"hides the whole image.*alpha: 0\.2"):
        read_trigger(str(tmp_path / "p.png"), 16)


def test_a_picture_of_more_than_8_bits_is_refused(tmp_path):
    picture(tmp_path / "p.png", (16, 16), 300, "I;16")
    with pytest.raises(DataError, match="8 bits a channel"):
        read_trigger(str(tmp_path / "p.png"), 16)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{kind: patch, rows: [10, 16], columns: [0, 3]}", "row 16 and column 3 but .* 16 × 16"),
        ("{kind: patch, size: 32, rows: [1, 3], columns: [0, 3]}", "32 × 32, but .* 16 × 16"),
        ("{kind: image, file: p.png, position: [13, 0]}", "p.png is 4 × 4 at row 13 and column 0"),
        ("{kind: frequency}", "windows of 32 × 32, .* 16 × 16"),
        ("{kind: sequence, steps: [{kind: sig}, {kind: frequency}]}", "windows of 32 × 32"),
        ("{kind: sequence, steps: [{kind: sig, size: 32}]}", "32 × 32, but .* 16 × 16"),
    ],
)
def test_another_size_is_said_with_both_sizes(tmp_path, text, reason):
    picture(tmp_path / "p.png")
    with pytest.raises(DataError, match=reason):
        describe(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        (
            "{kind: patch, rows: [3, 1], columns: [0, 1.5], colour: [1, 1, 1], alpha: 2}",
            ["rows: .* lies behind", r"columns\.1: ", "alpha: ", "colour: .* did you mean color"],
        ),
        ("{kind: noise, pattern: x}", ["pattern: unknown key; there are: .*seed"]),
        ("{kind: patch, columns: [0, 1]}", ["rows: Field required"]),
        ("{kind: patch, rows: [-1, 1], columns: [0, 1]}", [r"rows\.0: "]),
        ("{kind: patch, rows: [0, 1], columns: [0, 1], color: [1, 1, 255]}", [r"color\.2: "]),
        ("{kind: sticker}", ["'patch', 'checker', 'noise', 'image', 'sig', 'wanet', 'frequency'"]),
        ("{kind: sig, delta: 0, frequency: -1}", ["delta: ", "frequency: "]),
        ("{kind: wanet, k: 1, strength: 0, seeds: 3}", ["k: ", "strength: ", "did you mean seed"]),
        (
            "{kind: frequency, positions: [[32, 0]], magnitude: .inf}",
            [r"positions\.0\.0: ", "magn"],
        ),
        ("{kind: sequence, steps: []}", ["steps: "]),
        (
            "{kind: sequence, alpha: 1, steps: [{kind: sig}]}",
            ["alpha: unknown key; there are: size"],
        ),
        (
            "{kind: sequence, steps: [{kind: sig, delta: x}, {kind: wanet, sead: 1}, {kind: y}]}",
            [
                r"steps\.0\.delta: ",
                r"steps\.1\.sead: unknown key; did you mean seed",
                r"steps\.2: .*'y'",
            ],
        ),
        ("{kind: sequence, steps: [{kind: sequence, steps: [{kind: sig}]}]}", [r"steps\.0: "]),
        ("{rows: [0, 1]}", ["kind"]),
        ("just text", ["trigger.yaml: "]),
        ("{kind: patch, rows: [0", ["not valid YAML"]),
        ("kind: \x07", ["not valid YAML"]),
        ("{kind: patch, rows: [0, 1], rows: [0, 9]}", ["'rows' already stands in line 1"]),
    ],
)
def test_all_faults_of_a_description_are_named(tmp_path, text, reasons):
    with pytest.raises(DataError) as error:
        describe(tmp_path, text)
    for reason in reasons:
        assert error.match(reason)


def test_a_description_may_stand_in_place_of_its_file(tmp_path):
    text = "{kind: wanet, strength: 2}"
    inside, beside = read_trigger(f" {text}", 16), describe(tmp_path, text)
    assert inside.digest() == beside.digest() != read_trigger("wanet", 16).digest()
    assert (inside.name, inside.description) == (text, beside.description)
    assert (inside.file, beside.file) == (None, tmp_path / "trigger.yaml")
    long = f"{{kind: patch, rows: [0, 1], columns: [0, 1],{600 * ' '}color: [1, 0, 0]}}"
    assert len(read_trigger(long, 16).name) <= 60
    with pytest.raises(DataError, match=r"trigger: .*strenght: unknown key; did you mean strength"):
        read_trigger("{kind: wanet, strenght: 2}", 16)
    with pytest.raises(UnsafeInputError, match="lies outside"):
        read_trigger("{kind: image, file: ../p.png}", 16)


def test_a_sequence_lays_one_after_the_other(tmp_path):
    picture(tmp_path / "p.png", (3, 2))
    parts = [
        "{kind: sig, delta: 60, frequency: 3}",
        "{kind: wanet, seed: 4}",
        "{kind: image, file: p.png, position: [14, 1]}",
    ]
    whole = describe(tmp_path, f"{{kind: sequence, steps: [{', '.join(parts)}]}}")
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = images
    for part in parts:
        expected = describe(tmp_path, part)(expected)
    assert torch.equal(whole(images), expected)
    backwards = describe(tmp_path, f"{{kind: sequence, steps: [{', '.join(parts[::-1])}]}}")
    assert not torch.equal(backwards(images), expected)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_description_reads_back_as_the_same_trigger(tmp_path, name):
    built_in = read_trigger(name, 32)
    again = describe(tmp_path, built_in.description, 32)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(images), built_in(images))
    assert again.description == built_in.description
    assert again.digest() == built_in.digest()


def test_a_sequence_that_undoes_itself_or_hides_all_is_no_trigger(tmp_path):
    hidden = (
        "{kind: sequence, steps: [{kind: wanet}, {kind: patch, rows: [0, 15], columns: [0, 15]}]}"
    )
    with pytest.raises(DataError, match="hides the whole image"):
        describe(tmp_path, hidden)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [CANARY]",
        "{kind: image, file: !!python/object/apply:os.mkdir [CANARY]}",
        "{kind: &a patch, rows: [1, 2], columns: *a}",
        "[" * 15_000,
        "# " + "x" * 20_000,
        "{kind: image, file: ../outside.png}",
        "{kind: sequence, steps: [{kind: sig}, {kind: image, file: ../outside.png}]}",
        "{kind: image, file: OUTSIDE}",
        "{kind: image, file: link.png}",
    ],
)
def test_what_runs_code_or_leaves_the_folder_is_refused(tmp_path, text):
    inside = tmp_path / "inside"
    inside.mkdir()
    picture(tmp_path / "outside.png", (16, 16), (9, 9, 9, 99))
    (inside / "link.png").symlink_to(tmp_path / "outside.png")
    canary = tmp_path / "canary"
    text = text.replace("CANARY", str(canary)).replace("OUTSIDE", str(tmp_path / "outside.png"))
    with pytest.raises(UnsafeInputError, match=r"trigger\.yaml: "):
        describe(inside, text)
    assert not canary.exists()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(DataError, match="no such file"):
        read_trigger(str(tmp_path / "pipe.yaml"), 16)
