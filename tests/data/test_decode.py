import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as vision

from sslpurify.data.decode import MAX_PIXELS, ImageError, decode_image, image_size, open_image


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 9 + c) * np.cos(y / (7 + c)) for c in range(3)]
    return (127.5 + 120 * np.stack(waves, 2)).astype(np.uint8)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def pixels(path: Path, size: int | None = None) -> np.ndarray:
    """As height × width × 3, to compare with what was saved."""
    return decode_image(path, size).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp"])
def test_rgb_is_kept_bit_for_bit(tmp_path: Path, suffix: str):
    array = noise(12, 12, 3)
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(array), **options)
    decoded = decode_image(path, 12)
    assert decoded.dtype == torch.uint8
    assert decoded.is_contiguous()
    np.testing.assert_array_equal(pixels(path, 12), array)


def test_grey_fills_three_channels(tmp_path: Path):
    array = noise(5, 7)
    path = saved(tmp_path / "a.png", Image.fromarray(array))
    np.testing.assert_array_equal(pixels(path), np.stack([array] * 3, 2))


def test_black_and_white_bits_become_0_and_255(tmp_path: Path):
    array = noise(6, 6) > 127
    path = saved(tmp_path / "a.png", Image.fromarray(array))
    np.testing.assert_array_equal(pixels(path)[..., 1], array * 255)


def test_cmyk_is_converted(tmp_path: Path):
    array = noise(6, 6, 4)
    path = saved(tmp_path / "a.tif", Image.fromarray(array, "CMYK"))
    ink, black = array[..., :3] / 255, array[..., 3:] / 255
    np.testing.assert_allclose(pixels(path), 255 * (1 - ink) * (1 - black), atol=1)
    flat = np.full((16, 16, 4), (10, 200, 90, 30), np.uint8)
    jpeg = saved(tmp_path / "a.jpg", Image.fromarray(flat, "CMYK"), quality=95)
    expected = 255 * (1 - flat[..., :3] / 255) * (1 - 30 / 255)
    np.testing.assert_allclose(pixels(jpeg), expected, atol=4)


def test_transparency_is_laid_on_white(tmp_path: Path):
    rgba, la = noise(6, 6, 4), noise(6, 6, 2)
    for name, array in (("rgba", rgba), ("la", la)):
        path = saved(tmp_path / f"{name}.png", Image.fromarray(array))
        alpha = array[..., -1:] / 255
        expected = array[..., :-1] * alpha + 255 * (1 - alpha)
        np.testing.assert_allclose(pixels(path), np.broadcast_to(expected, (6, 6, 3)), atol=1)


def test_transparent_palette_and_colour_key_are_laid_on_white(tmp_path: Path):
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30, 200, 100, 50])
    palette.putpixel((0, 0), 2)
    plain = saved(tmp_path / "plain.png", palette)
    assert pixels(plain)[0, 0].tolist() == [200, 100, 50]
    for name, transparency in (("index", 1), ("bytes", bytes([255, 0, 255]))):
        path = saved(tmp_path / f"{name}.png", palette, transparency=transparency)
        assert pixels(path)[0, 0].tolist() == [200, 100, 50]
        assert pixels(path)[2, 2].tolist() == [255, 255, 255]
    key = Image.new("RGB", (4, 4), (9, 9, 9))
    path = saved(tmp_path / "key.png", key, transparency=(9, 9, 9))
    assert (pixels(path) == 255).all()


@pytest.mark.parametrize(
    ("name", "mode"), [("a.png", "I;16"), ("a.tif", "I;16"), ("b.tif", "I;16B"), ("a.pgm", "I")]
)
def test_16_bit_is_scaled_not_clipped(tmp_path: Path, name: str, mode: str):
    values = np.random.default_rng(0).integers(0, 65536, (16, 16), dtype=np.uint16)
    values[0, :2] = 0, 65535
    if mode == "I;16B":
        raw = values.astype(">u2").tobytes()
        path = saved(tmp_path / name, Image.frombytes("I;16B", (16, 16), raw))
    else:
        path = saved(tmp_path / name, Image.fromarray(values))
    with Image.open(path) as image:
        assert image.mode == mode
    np.testing.assert_array_equal(pixels(path)[..., 0], np.round(values / 257))


def test_16_bit_colour_key_is_laid_on_white(tmp_path: Path):
    values = np.full((4, 4), 3000, np.uint16)
    values[0] = 25700
    path = saved(tmp_path / "a.png", Image.fromarray(values), transparency=3000)
    assert pixels(path)[:, :, 0].tolist() == [[100] * 4] + [[255] * 4] * 3


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_defined_range_are_refused(tmp_path: Path, dtype: type):
    array = np.full((4, 4), 70000, dtype)
    path = saved(tmp_path / "a.tif", Image.fromarray(array))
    with pytest.raises(ImageError, match="range the file does not define"):
        decode_image(path, 4)


def test_animation_gives_its_first_frame(tmp_path: Path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert pixels(path)[4, 4].tolist() == [255, 0, 0]


UPRIGHT = {  # EXIF 2.32, tag 0x0112: from the stored rows and columns to the picture
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int):
    stored = np.kron(noise(2, 3, 3), np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
    path = saved(
        tmp_path / f"a.{suffix}", Image.fromarray(stored), exif=exif, **options.get(suffix, {})
    )
    atol = 12 if suffix == "jpg" else 0
    found, expected = pixels(path).astype(int), UPRIGHT[orientation](stored)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=atol)


def test_exif_that_cannot_be_parsed_turns_nothing(tmp_path: Path):
    array = noise(4, 6, 3)
    path = saved(tmp_path / "a.png", Image.fromarray(array), exif=b"garbage")
    np.testing.assert_array_equal(pixels(path), array)


def png_header(path: Path, width: int, height: int) -> Path:
    """A PNG that declares its size and has next to no data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("side", [9_500, 14_000, 60_000])
@pytest.mark.parametrize("action", ["error", "ignore"])
@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None])
def test_decompression_bombs_are_errors_whatever_pillow_is_set_to(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    side: int,
    action: str,
    limit: int | None,
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    path = png_header(tmp_path / "bomb.png", side, side)
    assert side * side > MAX_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter(action)  # pyright: ignore[reportArgumentType]
        for read in (decode_image, open_image, image_size):
            with pytest.raises(ImageError, match=r"bomb\.png: too large"):
                read(path)


def test_a_large_header_under_the_limit_is_reported_as_truncated_instead(tmp_path: Path):
    with pytest.raises(ImageError, match="truncated"):
        decode_image(png_header(tmp_path / "a.png", 300, 300), 32)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tif", "ppm"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_truncated_files_are_errors(tmp_path: Path, suffix: str, share: float):
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(noise(64, 64, 3)))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageError, match=r"a\.\w+: \w+"):
        decode_image(path, 32)


def test_other_formats_are_refused_by_content(tmp_path: Path):
    image = Image.fromarray(noise(8, 8, 3))
    path = tmp_path / "a.png"
    for kind in ("PCX", "ICO", "TGA", "SGI"):
        image.save(path, format=kind)
        with pytest.raises(ImageError, match="not an image of a known format"):
            decode_image(path, 8)
    path.write_text("<html>404</html>")
    with pytest.raises(ImageError, match="not an image of a known format"):
        decode_image(path, 8)


def test_what_is_no_file_is_an_error_and_never_waits(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in (("pipe.png", "not a regular file"), ("none.png", "does not exist")):
        with pytest.raises(ImageError, match=reason):
            decode_image(tmp_path / name, 8)


def test_error_carries_path_and_reason_and_escapes_control_characters(tmp_path: Path):
    path = tmp_path / "a\x1b[31m\n.png"
    path.write_bytes(b"nothing")
    with pytest.raises(ImageError) as caught:
        decode_image(path, 8)
    assert caught.value.source == path
    assert caught.value.reason.startswith("not an image")
    assert "\x1b" not in str(caught.value)
    assert r"a\x1b[31m\n.png: " in str(caught.value)


# Shapes whose centred crop starts on a whole pixel before and after: elsewhere the two round apart.
@pytest.mark.parametrize("shape", [(60, 60), (64, 96), (128, 64), (16, 24)])
def test_resize_is_torchvisions_resize_then_centre_crop(tmp_path: Path, shape: tuple[int, int]):
    image = Image.fromarray(smooth(*shape))
    path = saved(tmp_path / "a.png", image)
    bicubic = vision.InterpolationMode.BICUBIC
    resized = vision.resize(image, [32], interpolation=bicubic, antialias=True)
    expected = np.asarray(vision.center_crop(resized, [32, 32]))
    np.testing.assert_allclose(pixels(path, 32).astype(int), expected, atol=1)


def test_only_the_longer_side_is_cut(tmp_path: Path):
    array = noise(10, 16, 3)
    path = saved(tmp_path / "a.png", Image.fromarray(array))
    np.testing.assert_array_equal(pixels(path, 10), array[:, 3:13])


def test_extreme_shapes_are_harmless(tmp_path: Path):
    for width, height in ((1, 1), (1, 5000), (5000, 1), (2, 60_000)):
        path = saved(tmp_path / "a.png", Image.new("RGB", (width, height), (3, 2, 1)))
        assert pixels(path, 224).reshape(-1, 3).tolist() == [[3, 2, 1]] * 224**2


def _png_16(pixels: np.ndarray, colour_type: int) -> bytes:
    """A PNG with 16 bits a channel, which Pillow writes for grey alone."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


@pytest.mark.parametrize(("channels", "colour_type"), [(1, 0), (2, 4), (3, 2), (4, 6)])
def test_16_bit_channels_of_every_kind_keep_their_range(
    tmp_path: Path, channels: int, colour_type: int
):
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, channels), dtype=np.uint16)
    if channels in (2, 4):
        values[..., -1] = 65535
    path = tmp_path / "a.png"
    path.write_bytes(_png_16(values, colour_type))
    expected = values[..., : 3 if channels > 2 else 1].transpose(2, 0, 1) / 257
    assert np.abs(decode_image(path).numpy() - expected).max() <= 1


def test_16_bit_images_larger_than_a_piece_are_converted_whole(tmp_path: Path, monkeypatch):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = tmp_path / "a.png"
    Image.fromarray(values).save(path)
    monkeypatch.setattr("sslpurify.data.decode._PIECE", 1000)
    expected = ((values.astype(int) + 128) // 257).astype(np.uint8)
    assert np.array_equal(decode_image(path).numpy(), np.stack([expected] * 3))
