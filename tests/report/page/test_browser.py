"""In a real browser: what a page shows, at which width, and that its policy holds."""

import re
from pathlib import Path

import pytest
from PIL import Image

from sslpurify.report import to_html
from tests.report import records
from tests.report.browsing import browse, browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    browser()
    folder = tmp_path_factory.mktemp("page")
    record = records.whole()
    html = to_html(record, records.pictured(record, folder / "run"))
    (folder / "report.html").write_text(html, encoding="utf-8")
    return folder / "report.html"


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "paper"), [(0, (0x14, 0x17, 0x1A)), (1, (255, 255, 255))])
def test_a_phone_shows_the_page_in_dark_and_light(
    scheme: int, paper: tuple[int, int, int], page: Path, tmp_path: Path
) -> None:
    shot = tmp_path / "shot.png"
    browse(
        page,
        tmp_path,
        f"--blink-settings=preferredColorScheme={scheme}",
        f"--screenshot={shot}",
        "--window-size=360,6000",
    )
    with Image.open(shot) as picture:
        colours = picture.convert("RGB")
        assert colours.size == (360, 6000)
        assert colours.getpixel((1, 1)) == paper
        margin = colours.crop((346, 0, 360, 6000)).getcolors(maxcolors=2)
        assert margin == [(14 * 6000, paper)]  # nothing is wider than the phone
        seen = colours.crop((0, 0, 360, 1500)).getcolors(maxcolors=1 << 20)
        assert seen is not None
        assert len(seen) > 20


@pytest.mark.slow
def test_the_policy_stops_a_script_that_got_onto_the_page(page: Path, tmp_path: Path) -> None:
    """The same page without the policy runs it, so the script itself works."""
    html = page.read_text(encoding="utf-8")
    script = "<script>document.title='ran'</script></body>"
    slipped = tmp_path / "slipped.html"
    slipped.write_text(html.replace("</body>", script), encoding="utf-8")
    assert "<title>ran</title>" not in browse(slipped, tmp_path, "--dump-dom")
    free = tmp_path / "free.html"
    free.write_text(
        re.sub(r"<meta http-equiv[^>]*>", "", slipped.read_text(encoding="utf-8")), "utf-8"
    )
    assert "<title>ran</title>" in browse(free, tmp_path, "--dump-dom")
