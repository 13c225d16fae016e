"""The page from hand-made results: every value, footnote and label is there, nothing is loaded."""

import io
import json
import re
import shutil
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made import ASAP, DENSE, NAN, cell, frame
from PIL import Image

from asap.report.figures.clip_panels import animated
from asap.report.html_table import html_frame, html_table
from asap.report.inline import inline_svg
from asap.report.manifest import (
    Drawn,
    Manifest,
    Picture,
    RowRef,
    manifest_of,
    read_manifests,
    write_manifest,
)
from asap.report.page import Section, render_page
from asap.report.provenance import facts
from asap.report.result import Result
from asap.report.result_table import build_table
from asap.report.table_parts import parts

pytestmark = pytest.mark.painted

DEFAULT = {"tau": 3.0, "clusters": 4, "alpha": 0.5}
EVIL = '<script>alert("1")</script>'
WRONG = [[1, 0], [0, 1]]
POOL = cell("asap", 50.0, 1.6, ASAP, "Pooling", frame(top5=WRONG, stop_block=[1, 2]))
TOME = cell("tome", 100.0, 1.5, {"r": 4}, EVIL, frame(), note="r is <b>ours</b>")
LOST = Result("Lost", reason="out of memory & time")


def png():
    out = io.BytesIO()
    Image.new("RGB", (4, 3), (200, 30, 30)).save(out, "PNG")
    return out.getvalue()


def moving():
    shades = [np.full((3, 4, 3), shade, np.uint8) for shade in (20, 220)]
    return animated(shades, "WEBP")


PICTURES = [
    Drawn(Picture("a.png", "What it does", "Five images."), png()),
    Drawn(Picture("gone.png", "Gone", "No file."), None),
    Drawn(Picture("clip.png", "In motion", "Two frames.", "clip.webp"), png(), moving()),
    Drawn(Picture("still.png", "At rest", "Torn.", "still.webp"), png(), moving()[:40]),
    Drawn(Picture("torn.png", "Torn", "No picture."), b"\x89PNG torn"),
]


@pytest.fixture(scope="module")
def page() -> str:
    section = Section("Made by hand", [DENSE, POOL, TOME, LOST], ["A <remark>."], PICTURES)
    return render_page([section], DEFAULT, "Made by hand", "A note.")


class Reader(HTMLParser):
    """Tables as rows of texts, attributes of every tag, and whatever would be loaded."""

    def __init__(self, text: str):
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[tuple[str, dict]] = []
        self.open = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.open = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.open = False

    def handle_data(self, data):
        if self.open:
            self.tables[-1][-1][-1] += data.strip()


def test_the_table_by_hand(page):
    first = Reader(page).tables[0]
    assert [row[0] for row in first[2:]] == ["Dense", "Pooling", EVIL + "d", "Lost"]
    pooling = dict(zip(first[1], first[3], strict=True))
    assert pooling["Acc (%) base"] == "90.00"
    assert pooling["Acc (%) reduced"] == "50.00"
    assert pooling["Δ"] == "-50.00"  # of the predictions: one of two right, dense two
    assert pooling["FLOPs (%)a"] == "-20.00"  # 1.6 / 2 - 1; (a) says what is counted
    assert pooling["GMACs backbone + method = total"] == "1.600 + 0.000 = 1.600"
    lost = dict(zip(first[1], first[5], strict=True))
    assert lost["Acc (%) base"] == "90.00"
    assert re.fullmatch("[a-z]", lost["Acc (%) reduced"])  # a mark and no number


def test_footnotes_and_gaps_have_their_reasons(page):
    lost = Reader(page).tables[0][5][3]
    assert f"<sup>{lost}</sup> No record: out of memory &amp; time." in page
    assert "r is &lt;b&gt;ours&lt;/b&gt;" in page
    assert "<dt>Lost</dt><dd>out of memory &amp; time</dd>" in page
    assert "<dt>Gone</dt><dd>the file figures/gone.png is gone or damaged</dd>" in page
    assert "<dt>Torn</dt><dd>the file figures/torn.png is gone or damaged</dd>" in page
    assert "the paper has no numbers for digits_vit" in page
    assert "<dt>τ × K</dt>" in page and "A &lt;remark&gt;." in page and "A note." in page


def test_labels_are_escaped_everywhere(page):
    assert EVIL not in page
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert" in page


def test_exact_values_and_records_are_at_hand(page):
    tips = [attrs["data-tip"] for _, attrs in Reader(page).tags if attrs.get("data-tip")]
    assert "top1: 50\nrecord: asap-50-1.6" in tips
    assert "gmacs_backbone: 1.6\ngmacs_method: 0\ninfer_gmacs: 1.6\nrecord: asap-50-1.6" in tips
    on_points = [tip for tip in tips if "front: " in tip]  # on the marks of the first figure
    assert any("gmacs: 1.6" in tip and "key: asap-50-1.6" in tip for tip in on_points)


def test_nothing_is_loaded_from_anywhere(page):
    for tag, attrs in Reader(page).tags:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            value = attrs.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, name, value[:60])
        assert not (tag in ("link", "iframe", "object") and attrs.get("rel") != "icon")
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    assert "default-src 'none'" in page


def test_an_animation_waits_until_it_is_played(page):
    """Also without a script: the picture that is shown is the still one."""
    tags = Reader(page).tags
    pictures = {a["alt"].split(".")[0]: a for tag, a in tags if tag == "img"}
    clip, torn = pictures["In motion"], pictures["At rest"]
    assert clip["data-moving"] == "data:image/webp;base64," + b64encode(moving()).decode()
    assert clip["data-milliseconds"] == "1000" and clip["src"] == torn["src"]
    assert "data-moving" not in torn
    assert [a["aria-pressed"] for tag, a in tags if a.get("class") == "play"] == ["false"]


def test_tables_can_be_read_aloud(page):
    tags = Reader(page).tags
    heads = [attrs for tag, attrs in tags if tag == "th"]
    assert heads and all(attrs.get("scope") in ("col", "row", "colgroup") for attrs in heads)
    assert page.count("<caption>") == page.count("<table ")
    assert all(attrs.get("alt") for tag, attrs in tags if tag == "img")
    drawn = [attrs for tag, attrs in tags if tag == "svg"]
    assert drawn and all(a["role"] == "img" and a["aria-label"] for a in drawn)


def test_ids_are_unique_and_used_ones_exist(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', page)
    assert set(used) <= set(ids)


def test_equal_results_make_equal_pages(page):
    section = Section("Made by hand", [DENSE, POOL, TOME, LOST], ["A <remark>."], PICTURES)
    assert render_page([section], DEFAULT, "Made by hand", "A note.") == page


def test_records_that_cannot_share_a_table_say_so():
    other = TOME.with_records(accuracy={**TOME.measured, "precision": "bf16"})
    page = render_page([Section("Mixed", [DENSE, other])], DEFAULT, "All")
    assert "<dt>Table</dt><dd>one table holds one precision" in page
    empty = render_page([Section("Nothing", [LOST])], DEFAULT, "All")
    assert "no finished record" in empty


def test_sort_keys_are_numbers_and_gaps_are_last():
    found = html_table(parts(build_table([DENSE, POOL, LOST]))[0])
    column = [head.title for head in found.heads].index("Acc (%) reduced")
    assert [row[column].sort for row in found.rows] == ["", "50.0", ""]  # dense shows a dash
    numbers = html_frame(pd.DataFrame({"a": [0.1 + 0.2, NAN], "key": ["x", "y"]}), "t")
    assert [row[0].text for row in numbers.rows] == ["0.3", "–"]
    assert [row[0].sort for row in numbers.rows] == [repr(0.1 + 0.2), ""]


def test_svg_takes_the_inks_of_the_page():
    text = (
        '<?xml version="1.0"?><!DOCTYPE svg><svg width="9" viewBox="0 0 90 60">'
        '<metadata>x</metadata><g id="point-0">'
        '<path style="fill: #FFFFFF; stroke: #1f2933" clip-path="url(#p1)"/></g></svg>'
    )
    found = inline_svg(text, "s1", 'a "label"', {"point-0": "top1: 5\n<b>"})
    assert found.startswith('<svg viewBox="0 0 90 60"') and "metadata" not in found
    assert 'id="s1-point-0" data-tip="top1: 5\n&lt;b&gt;"' in found
    assert "fill: var(--card); stroke: var(--ink)" in found and "url(#s1-p1)" in found
    assert 'aria-label="a &quot;label&quot;"' in found


def test_provenance_lists_what_differs():
    found = {fact.name: fact.values for fact in facts([DENSE, POOL, LOST])}
    assert found["weights, SHA-256"] == ("w" * 64,)
    assert found["torch"] == ("2.99",)
    assert found["measured"] == ("2026-01-02T03:04:05+00:00",)
    assert found["records"] == ("dense-90-2 (dense)", "asap-50-1.6 (asap)")
    assert "device name" not in found


def test_a_manifest_is_read_back_and_a_damaged_one_left_out(tmp_path, caplog):
    made = manifest_of("Demo", ["r"], [DENSE, LOST], [PICTURES[0].picture])
    assert made.rows == (
        RowRef("Dense", records={"accuracy": "dense-90-2"}),
        RowRef("Lost", reason="out of memory & time"),
    )
    write_manifest(made, tmp_path / "tables" / "demo.rows.json")
    for name, text in (("a", "{"), ("b", "[]"), ("c", '{"version": 9}')):
        (tmp_path / "tables" / f"{name}.rows.json").write_text(text)
    rows = [{**vars(made.rows[0]), "records": {"accuracy": ["a", "list"]}}]
    strange = json.dumps({"version": 2, **vars(made), "rows": rows, "pictures": []})
    (tmp_path / "tables" / "strange.rows.json").write_text(strange)
    assert read_manifests(tmp_path) == [made]
    assert len(caplog.records) == 4
    assert read_manifests(tmp_path / "nowhere") == []
    assert isinstance(made, Manifest)


def browser():
    """Chromium and a client to drive it, or a skip that says what is missing."""
    client = pytest.importorskip("playwright.sync_api", reason="no playwright to drive a browser")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    return client, path


@pytest.mark.process
def test_the_page_in_a_browser(page, tmp_path: Path):
    client, path = browser()
    file = tmp_path / "report.html"
    file.write_text(page, "utf-8")
    with client.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for width, scheme in ((1440, "light"), (800, "dark"), (390, "light")):
            size = {"width": width, "height": 900}
            view = chromium.new_page(viewport=size, color_scheme=scheme)
            said, asked = [], []
            view.on("console", lambda message, said=said: said.append(message.text))
            view.on("pageerror", lambda error, said=said: said.append(str(error)))
            view.on("request", lambda request, asked=asked: asked.append(request.url))
            view.goto(file.as_uri())
            check_sorting(view)
            check_animation(view)
            check_exact_values(view)
            check_room(view, width)
            ground = view.evaluate("getComputedStyle(document.body).backgroundColor")
            light = sum(map(int, re.findall(r"\d+", ground)[:3])) > 3 * 128
            assert light == (scheme == "light")
            assert said == []
            assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
            view.close()
        chromium.close()


def check_sorting(view):
    column = view.locator("table.wide").first.locator("thead button", has_text="reduced")
    rows = view.locator("table.wide").first.locator("tbody tr > :first-child")

    def order():
        return [text.rstrip("d") for text in rows.all_inner_texts()]

    column.click()  # the largest first; Dense shows a dash and Lost has no number
    assert order()[:2] == [EVIL, "Pooling"]
    column.click()
    assert order()[:2] == ["Pooling", EVIL]
    assert set(order()[2:]) == {"Dense", "Lost"}


def check_animation(view):
    """It plays and stops; where less motion is wished for, it ends by itself."""
    button, picture = view.locator("button.play"), view.locator("img[data-moving]")
    still, played = picture.get_attribute("src"), picture.get_attribute("data-moving")
    for expected, said in ((played, "Stop"), (still, "Play")):
        button.click()
        assert picture.get_attribute("src") == expected and button.inner_text() == said
    view.emulate_media(reduced_motion="reduce")
    button.click()
    assert picture.get_attribute("src") == played
    view.locator("button.play", has_text="Play").wait_for()  # the page allows no eval
    assert picture.get_attribute("src") == still


def check_exact_values(view):
    tip = view.locator("#tip")
    target = view.locator("table.wide").first.locator("tbody td", has_text="50.00").first
    target.hover()
    assert tip.inner_text() == "top1: 50\nrecord: asap-50-1.6"
    view.keyboard.press("Escape")
    assert not tip.is_visible()
    target.focus()
    assert tip.is_visible()
    view.keyboard.press("ArrowLeft")
    assert tip.inner_text().startswith("top1_base: 90")


def check_room(view, width):
    """The page never scrolls sideways; a wide table does, in its box, with its first column."""
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    moved = view.evaluate(
        """() => {
            const box = document.querySelector(".box"), head = box.querySelector("tbody th");
            const before = head.getBoundingClientRect().left;
            box.scrollLeft = 200;
            return [box.scrollWidth > box.clientWidth, head.getBoundingClientRect().left - before];
        }"""
    )
    assert moved[1] == 0 and (moved[0] or width == 1440)
