import json
import re
from base64 import b64decode
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sslpurify.report import pictures_of, to_html
from tests.report import records
from tests.report.browsing import Elements, parsed


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return records.pictured(records.whole(), tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def html(pictures: dict[str, bytes]) -> str:
    return to_html(records.whole(), pictures)


@pytest.fixture(scope="module")
def page(html: str) -> Elements:
    return parsed(html)


def test_what_strangers_named_is_text_and_nothing_else(page: Elements) -> None:
    for tag in ("script", "link", "iframe", "object", "base", "form", "svg"):
        assert page.all(tag) == []
    assert not any(name.startswith("on") for _, attributes in page.found for name in attributes)
    for name in (records.SCRIPT, records.IMAGE, records.FILE, "$\\frac{", "_hidden", "-->"):
        assert name in page.text
    assert "\u202e" not in page.text
    assert "safe\\u202egnp.exe" in page.text


def test_nothing_is_loaded_from_anywhere(page: Elements, html: str) -> None:
    for tag, attributes in page.found:
        for name in ("src", "href", "srcset", "action", "data", "poster", "background"):
            if name in attributes:
                local = "#" if tag == "a" else "data:image/"
                assert attributes[name].startswith(local), (tag, name)
        assert "style" not in attributes
    assert re.findall(r"url\(|@import", html) == []
    drawings = [
        b64decode(image["src"].partition(",")[2]).decode()
        for image in page.all("img")
        if image["src"].startswith("data:image/svg+xml;base64,")
    ]
    assert len(drawings) == 4
    for drawing in drawings:
        inner = parsed(drawing)
        references = [
            value
            for _, attributes in inner.found
            for name, value in attributes.items()
            if name in ("href", "xlink:href", "src")
        ]
        assert all(value.startswith("#") for value in references)
        assert {tag for tag, _ in inner.found}.isdisjoint({"script", "image", "foreignobject"})


def test_the_policy_allows_embedded_pictures_and_this_style_alone(page: Elements) -> None:
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives.pop("style-src").startswith("'sha256-")
    assert directives == {
        "default-src": "'none'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_who_does_not_see_can_read_it(page: Elements) -> None:
    assert page.all("html")[0]["lang"] == "en"
    assert all(image["alt"].strip() for image in page.all("img"))
    assert all(head["scope"] in ("col", "row") for head in page.all("th"))
    captions = [tag for tag, _ in page.found].count("caption")
    assert captions == len(page.all("table")) > 5
    headings = [int(tag[1]) for tag, _ in page.found if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(headings))


def test_every_part_is_there_once_and_the_contents_lead_to_it(page: Elements) -> None:
    anchors = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(anchors) == len(set(anchors))
    targets = [link["href"].removeprefix("#") for link in page.all("a")]
    assert set(targets) <= set(anchors)
    assert targets == [
        "verdict", "map", "neighbours", "trigger", "classes", "curves", "sweep", "permutations",
        "limits", "configuration", "provenance",
    ]  # fmt: skip


def test_rates_come_with_counts_intervals_and_protocol(page: Elements) -> None:
    text = " ".join(page.text.split())
    assert "91.7 → 10.8 %" in text
    assert "never attacked: 4.2 %" in text
    assert "10.8 8.8 to 12.8, n 900" in text
    assert "825 of 900 before purification; 97 of 900 after it" in text
    assert "protocol exclude-target" in text
    assert "−80.9 −83.0 to −78.0, p < 0.001" in text
    assert "p = 0.012" in text
    assert "does not certify" in text


def test_the_page_is_a_function_of_the_record_and_the_pictures(tmp_path: Path) -> None:
    record = records.whole()
    pictures = records.pictured(record, tmp_path / "run")
    again = json.loads(json.dumps(record))
    assert to_html(record, pictures) == to_html(again, pictures_of(tmp_path / "run"))
    assert set(pictures) >= {"map-before.svg", "map-after.svg", "profile-round-1-stage-1.svg"}
    assert "sweep-round-1-stage-1.svg" in pictures
    assert {"map-before.png", "profile-round-1-stage-1.png"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_a_purification_claims_nothing_that_it_did_not_measure(
    pictures: dict[str, bytes],
) -> None:
    page = parsed(to_html(records.purification(), pictures))
    targets = [link["href"] for link in page.all("a")]
    assert targets == ["#curves", "#permutations", "#limits", "#configuration", "#provenance"]
    assert "cannot say whether a backdoor was there or is gone" in " ".join(page.text.split())
    assert "attack success" not in page.text


@pytest.mark.parametrize(
    "without", ["trigger", "changes", "stages", "sweep", "classes", "reference"]
)
def test_what_the_record_has_not_the_page_has_not(without: str, pictures: dict[str, bytes]) -> None:
    record: dict[str, Any] = records.whole()
    match without:
        case "trigger":
            rows = [
                {
                    **row,
                    "attack_success_rate": None,
                    "classes": [{**c, "attack_success_rate": None} for c in row["classes"]],
                }
                for row in record["results"]
            ]
            record |= {"results": rows, "trigger": None, "neighbours": None, "changes": []}
            del record["sweep"]
        case "reference":
            record["results"] = [r for r in record["results"] if r["which"] != "reference"]
        case "classes":
            record["results"] = [{**row, "classes": []} for row in record["results"]]
        case other:
            del record[other]
    text = " ".join(parsed(to_html(record, pictures)).text.split())
    absent = {
        "trigger": "ASR",
        "changes": "After less before",
        "stages": "Stages of the purification",
        "sweep": "0.30 57.0 55.0 to 59.0, n 900 65.0 63.0 to 67.0, n 900",
        "classes": "clean accuracy in per cent; in small print",
        "reference": "is the yardstick",
    }
    assert absent[without] not in text
    assert absent[without] in " ".join(parsed(to_html(records.whole(), pictures)).text.split())


def test_colours_can_be_told_from_the_paper_in_light_and_dark() -> None:
    style = Path(__file__).parents[3] / "sslpurify" / "report" / "page" / "page.css"
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w{6});", block))
        for block in style.read_text().split("prefers-color-scheme: dark")
    )
    assert light.keys() == dark.keys()
    for scheme in (light, dark):
        for paper in ("paper", "card"):
            for ink in ("ink", "quiet", "link"):
                assert contrast(scheme[ink], scheme[paper]) >= 4.5


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)
