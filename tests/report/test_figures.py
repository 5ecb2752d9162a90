from pathlib import Path

from PIL import Image

from sslpurify.curves import Point, Profile
from sslpurify.report import save_profile

PROFILE = Profile(
    tuple(Point(t / 4, 4.0 + t, 1 - t / 10, 1 - t / 8) for t in range(5)), chosen=0.25
)


def test_a_profile_is_a_readable_picture_and_the_same_bytes_again(tmp_path: Path) -> None:
    first, again, other = (tmp_path / name for name in ("a.png", "b.png", "c.png"))
    save_profile(PROFILE, first, title="round 1 · stage 1")
    save_profile(PROFILE, again, title="round 1 · stage 1")
    save_profile(Profile(PROFILE.points, 0.75), other, title="round 1 · stage 1")
    with Image.open(first) as picture:
        assert picture.format == "PNG"
        assert picture.width >= 800
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() != other.read_bytes()
