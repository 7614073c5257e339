"""The page of a comparison in a real browser: plot, sorting, items, overlays, narrow and dark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report import browser as browsers
from tests.report.browser import Browser
from tests.report.comparisons import a_pass, a_picture, an_item, head, judged, mask_of
from tests.report.test_page_data import HOSTILE
from vtc_cli.report.compare.build import summarise
from vtc_cli.report.compare.page import page_text
from vtc_cli.report.compare.rows import Rows

FATES = [0, 0, 1, 3, 2, 3, 1, 1]  # 2 rows of 4 patches over 40 x 20 pixels
ENTER, TAB, SPACE = "\ue007", "\ue004", " "
COUNT = 30


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsers.started(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """30 items; the recipe `low` loses the last 10 and gains none, one question is hostile."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = Rows(head(["high", "low"], ["4"]))
    for number in range(COUNT):
        picture = a_picture(folder / f"{number}.png", (255, 250 - number, 0))
        question = HOSTILE if number == 3 else f"question {number}?"
        kind = "even" if number % 2 == 0 else "odd"
        rows.take(an_item(f"i{number}", number, question=question, category=kind, picture=picture))
        right = {"full": True, "high": number != 5, "low": number < 20, "random": number % 3 > 0}
        for recipe, is_right in right.items():
            answer = "yes" if is_right else HOSTILE if recipe == "low" else "no"
            budget = "" if recipe == "full" else "4"
            cost = {"high": 0.5, "low": 0.3, "random": 0.4}.get(recipe, 1.0)
            mask = None if recipe == "full" else mask_of(FATES)
            rows.take(a_pass(f"i{number}", recipe, budget, answer, cost=cost, mask=mask))
    return rows


@pytest.fixture
def page(rows: Rows, tmp_path: Path, browser: Browser) -> Iterator[Path]:
    """The page as a file; in the end the console and the network are asked."""
    path = tmp_path / "page.html"
    found = summarise(rows, argv=["compare", HOSTILE], created="now")
    path.write_text(page_text(rows, found), encoding="utf-8")
    yield path
    assert browser.foreign_requests() == []
    assert browser.logs() == []


def column(browser: Browser, number: int) -> list[str]:
    return browser.texts(f".answers tbody tr > :nth-child({number})")


def settle(browser: Browser) -> None:
    browser.chrome.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50))")


def test_no_text_becomes_markup(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"<script", text)) == text.count("</script") == 3
    assert "<img" not in text
    embedded = re.search(r'id="result">(.*?)</script>', text)
    assert embedded is not None
    result = json.loads(embedded[1])
    assert result["command"] == "compare" and len(result["arms"]) == 4


def test_tables_sort_by_mouse_and_by_key(page: Path, browser: Browser) -> None:
    browser.open(page)
    own = ["full", "high", "low", "random"]
    assert [name.split()[0] for name in column(browser, 1)] == own
    assert column(browser, 4) == ["100.0", "96.7", "66.7", "66.7"]
    button = ".answers thead th:nth-child(4) button"
    browser.click(button)
    browser.click(button)
    assert column(browser, 4) == ["66.7", "66.7", "96.7", "100.0"]
    aria = "return document.querySelector('.answers th[aria-sort]').getAttribute('aria-sort')"
    assert browser.run(aria) == "ascending"
    browser.run("document.querySelector(arguments[0]).focus()", button)
    browser.press(ENTER)
    assert [name.split()[0] for name in column(browser, 1)] == own
    browser.run("document.querySelector('.costs thead th:nth-child(7) button').focus()")
    browser.press(SPACE)
    shares = browser.texts(".costs tbody tr > :nth-child(7)")
    assert shares == ["100.0 %", "50.0 %", "40.0 %", "30.0 %"]


def test_empty_cells_come_last_in_both_orders(page: Path, browser: Browser) -> None:
    browser.open(page)
    button = ".answers thead th:nth-child(6) button"  # the difference to the full model
    for expected in (["\u22123.3", "\u221233.3*", "\u221233.3*", ""],):
        browser.click(button)
        assert column(browser, 6) == expected
        browser.click(button)
        assert column(browser, 6) == [*reversed(expected[:-1]), ""]


def test_the_plot_tells_a_mark_under_the_pointer_and_on_focus(page: Path, browser: Browser) -> None:
    browser.open(page)
    mark = '[data-arm="high 4"].point'
    label = f"return getComputedStyle(document.querySelector('{mark} .label')).display"
    assert browser.run(label) == "none"
    browser.hover(f"{mark} .target")
    settle(browser)
    assert browser.run(label) != "none"
    told = browser.texts(f"{mark} .label text")
    assert told[:2] == ["high 4", "accuracy 96.7 % (83.3 to 99.4)"]
    browser.hover("h1")
    settle(browser)
    browser.run("document.querySelector(arguments[0]).focus()", mark)
    assert browser.run(label) != "none"
    assert browser.count(".point[tabindex='0'][role=img][aria-label]") == 4


def test_marks_stand_where_their_figures_are(page: Path, browser: Browser) -> None:
    browser.open(page)
    script = """return [...document.querySelectorAll(".point")].map((p) => {
        const t = p.querySelector(".target");
        return [p.dataset.arm, +t.getAttribute("cx"), +t.getAttribute("cy")]; })"""
    places = {name: (x, y) for name, x, y in browser.run(script)}
    x = {name: place[0] for name, place in places.items()}
    wide = (x["full"] - x["low 4"]) / (1.0 - 0.3)
    assert x["high 4"] == pytest.approx(x["full"] - 0.5 * wide, abs=0.2)
    y = {name: place[1] for name, place in places.items()}
    high = (y["low 4"] - y["full"]) / (100 - 200 / 3)
    assert y["high 4"] == pytest.approx(y["full"] + high * (100 - 2900 / 30), abs=0.2)
    assert y["random 4"] == y["low 4"]


def test_an_item_opens_with_a_tile_for_each_arm(page: Path, browser: Browser) -> None:
    browser.open(page)
    assert browser.text("#count") == "30 of 30 items"
    assert browser.count("#items > li") == 25 and browser.count(".tile") == 0
    browser.click('[data-item="i20"] summary')
    settle(browser)
    tiles = browser.texts('[data-item="i20"] .tile')
    assert tiles[0] == "fullright: yes" and tiles[1].startswith("high 4right: yes")
    assert tiles[2] == f"low 4wrong: {HOSTILE}KL 0.1 nats"
    assert browser.text('[data-item="i20"] .score') == "3 of 4 right"
    assert browser.texts('[data-item="i3"] .question') == [HOSTILE]


def test_the_overlay_shades_each_fate_at_its_place(page: Path, browser: Browser) -> None:
    browser.open(page)
    browser.click('[data-item="i0"] summary')
    settle(browser)
    assert browser.count('[data-item="i0"] [data-arm="full"] path') == 0
    names = {0: "shade-early", 1: "shade-late", 2: "shade-merged"}
    script = """const svg = document.querySelector('[data-item="i0"] [data-arm="low 4"] svg');
        const point = svg.createSVGPoint(); [point.x, point.y] = arguments;
        return [...svg.querySelectorAll("path")].filter((p) => p.isPointInFill(point))
          .map((p) => p.getAttribute("class"))"""
    for patch, fate in enumerate(FATES):
        x, y = 10 * (patch % 4) + 5, 10 * (patch // 4) + 5
        assert browser.run(script, x, y) == ([names[fate]] if fate in names else [])
    pixel = """const image = document.querySelector('[data-item="i0"] image');
        const copy = new Image(); copy.src = image.getAttribute("href"); const [done] = arguments;
        copy.onload = () => { const c = document.createElement("canvas").getContext("2d");
          c.drawImage(copy, 0, 0); done([...c.getImageData(5, 5, 1, 1).data]); };"""
    assert browser.chrome.execute_async_script(pixel) == [255, 250, 0, 255]


def test_items_are_chosen_by_outcome_category_and_words(page: Path, browser: Browser) -> None:
    browser.open(page)
    pick = """const [id, text] = arguments; const box = document.getElementById(id);
        if (box.options) box.selectedIndex = [...box.options].findIndex((o) => o.text === text);
        else box.value = text;
        box.dispatchEvent(new Event("input"));"""
    browser.run(pick, "show", "low 4 loses")
    assert browser.text("#count") == "10 of 30 items"
    browser.run(pick, "category", "odd")
    assert browser.text("#count") == "5 of 30 items"
    browser.run(pick, "search", "question 21")
    assert browser.texts("#items .question") == ["question 21?"]
    browser.run(pick, "search", "nothing of the kind")
    assert browser.text("#count") == "0 of 30 items" and browser.count("#items > li") == 0
    for name, text in (("search", ""), ("category", "all"), ("show", "high 4 gains")):
        browser.run(pick, name, text)
    assert browser.text("#count") == "0 of 30 items"


def test_long_lists_turn_pages(page: Path, browser: Browser) -> None:
    browser.open(page)
    assert browser.text("#page") == "1 to 25"
    browser.click("#behind")
    assert browser.text("#page") == "26 to 30" and browser.count("#items > li") == 5
    assert browser.run("return document.getElementById('behind').disabled") is True
    browser.click("#before")
    assert browser.count("#items > li") == 25


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(
    page: Path, browser: Browser, width: int, scheme: str
) -> None:
    browser.open(page, width=width, height=740, scheme=scheme)
    browser.run("document.querySelector('#items details').open = true")
    settle(browser)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    ground = "return getComputedStyle(document.body).backgroundColor"
    dark = sum(map(int, re.findall(r"\d+", browser.run(ground)))) < 200
    assert dark == (scheme == "dark")
    cells = "return [...document.querySelector('.answers tbody tr').cells].map((c) => c.offsetLeft)"
    places = browser.run(cells)
    assert places == sorted(places) and len(set(places)) == len(places)


@pytest.mark.parametrize("width", [320, 390, 900])
def test_text_of_the_plot_can_be_read_at_every_width(
    page: Path, browser: Browser, width: int
) -> None:
    """Letters of at least 11 px as they appear, inside the window, and none over another."""
    browser.open(page, width=width, height=740)
    script = """const scale = document.querySelector(".plot").getScreenCTM().a;
        return [...document.querySelectorAll(".plot text")].map((t) => {
          const b = t.getBoundingClientRect(), size = parseFloat(getComputedStyle(t).fontSize);
          return [size * scale, b.left, b.top, b.right, b.bottom];
        }).filter(([, left, , right]) => right > left)"""
    texts = browser.run(script)
    assert len(texts) > 10
    assert min(size for size, *_ in texts) >= 11
    assert all(left >= 0 and right <= width for _, left, _, right, _ in texts)
    for number, (_, left, top, right, bottom) in enumerate(texts):
        for _, left2, top2, right2, bottom2 in texts[:number]:
            apart = right <= left2 or right2 <= left or bottom <= top2 + 3 or bottom2 <= top + 3
            assert apart, (number, left, top, left2, top2)


def test_a_wide_table_says_that_it_moves(page: Path, browser: Browser) -> None:
    """On a phone tables scroll in themselves, with every column and a line that says so."""
    browser.open(page, width=390, height=740)
    wide = """const box = document.querySelector(".wide"); box.scrollLeft = 1e6;
        const last = box.querySelector("tbody tr").lastElementChild.getBoundingClientRect();
        const shown = document.querySelector(".swipe").offsetHeight > 0;
        return [box.scrollWidth > box.clientWidth, last.right <= innerWidth, shown]"""
    assert browser.run(wide) == [True, True, True]
    browser.open(page, width=1280)
    assert browser.run("return document.querySelector('.swipe').offsetHeight") == 0


def test_on_a_phone_the_plot_tells_below(page: Path, browser: Browser) -> None:
    browser.open(page, width=360, height=740)
    browser.tap('[data-arm="low 4"].point .target')
    assert browser.text("#plot-readout").startswith("low 4, accuracy 66.7 %")


def test_pictures_that_are_gone_are_told(tmp_path: Path, browser: Browser) -> None:
    table = {("full", ""): [True] * 2, ("r", "4"): [True] * 2, ("random", "4"): [True] * 2}
    bare = judged(table, ["r"], ["4"])
    text = page_text(bare, summarise(bare, argv=[], created="now"))
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    browser.open(tmp_path / "page.html")
    assert browser.text("#count") == "2 of 2 items; 2 pictures are not in this page"
    browser.click("#items summary")
    settle(browser)
    assert browser.count(".tile") == 3 and browser.count(".tile svg") == 0
