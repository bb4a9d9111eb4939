"""The pages in a real browser, from the disk: no errors, no requests, and script that does what it is for.

HARNESS_SCREENSHOTS names a folder for pictures of every page: wide, dark, narrow and printed.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.report import make_report
from tests.browser.opening import Browser, lacking, open_browser, screenshots, wait_for
from tests.report_samples import (
    HOSTILE,
    HOSTILE_PAPER,
    PAPER,
    everything,
    hostile,
    hostile_verdict,
    save,
    verdict,
    with_artefacts,
)

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())
LOOKS = {"wide": {}, "dark": {"dark": True}, "narrow": {"width": 400}, "print": {"width": 794, "printed": True}}
ENTER, TAB = "\ue007", "\ue004"

# WCAG 2: the ratio of the luminances of a text and of what lies behind it. Texts of charts are judged by their fill.
CONTRAST = """
const light = (rgb) => rgb.map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c.slice(0, 3);
  }
  return [255, 255, 255];
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement, box = e.getBoundingClientRect();
  if (!walker.currentNode.textContent.trim() || !box.width || e.closest("script, .here, [hidden], title, desc")) continue;
  const style = getComputedStyle(e);
  const ink = parse(e.closest("svg") ? style.fill : style.color).slice(0, 3);
  const [a, b] = [light(ink), light(behind(e.closest("svg") ? e.closest("figure") : e))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) found.push([walker.currentNode.textContent.trim().slice(0, 40), ratio.toFixed(2)]);
}
return found;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    downloads = tmp_path_factory.mktemp("downloads")
    with open_browser(tmp_path_factory.mktemp("profile"), downloads) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    make_report(everything(folder / "registry"), folder / "pages", [PAPER], verdicts=[verdict()])
    return folder / "pages"


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    opened = hostile(folder / "registry")
    make_report(opened, folder / "pages", [HOSTILE_PAPER], {HOSTILE: {"summary": HOSTILE}}, [hostile_verdict()])
    return folder / "pages"


@pytest.fixture(scope="module")
def report_with_artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawing, a text, an SVG that would run, one that would load, and HTML, the last three with a stranger's names."""
    folder = tmp_path_factory.mktemp("artefacts")
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" {}>{}</svg>'
    strange = [
        (f"run{HOSTILE}", svg.format('onload="document.title=666"', "<script>document.title=666</script>"), "image/svg+xml"),
        (f"load{HOSTILE}", svg.format("", '<rect width="9" height="9" fill="url(https://example.org/x#y)"/>'), "image/svg+xml"),
        (f"page{HOSTILE}", "<script>document.title=666</script><img src=https://example.org/x.png>", "text/html"),
    ]
    opened = with_artefacts(folder / "registry", lambda seed: [*save(seed), *((n, c.encode(), m) for n, c, m in strange)])
    make_report(opened, folder / "pages")
    return folder / "pages"


def names_of(addresses: list[str]) -> set[str]:
    return {Path(address.partition("#")[0]).name for address in addresses}


def one(folder: Path, start: str) -> Path:
    return min(folder.glob(f"{start}*.html"))


def test_every_page_opens_without_an_error_and_without_a_request(browser, report):
    """A page from a mail attachment, on a train: all that it needs lies beside it."""
    browser.look()
    for page in sorted(report.glob("*.html")):
        browser.open(page)
        needed, asked = {page.name, "report.css", "report.js"}, list(browser.asked())
        patience = time.monotonic() + 10  # a busy machine's browser tells late what it asked for
        while not needed <= names_of(asked) and time.monotonic() < patience:
            time.sleep(0.05)
            asked += browser.asked()

        assert browser.said() == [], page.name
        assert names_of(asked) == needed
        assert all(address.startswith("file:///") for address in asked)
        assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth"), f"{page.name} is too wide"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(browser, report, dark):
    """4.5 to 1, as WCAG asks, in both colour schemes, in tables and in charts."""
    browser.look(dark=dark)
    for page in sorted(report.glob("*.html")):
        browser.open(page)

        assert browser.run(CONTRAST) == [], page.name
    browser.run("document.querySelector('h1').style.color = '#777'")
    assert browser.run(CONTRAST), "grey on grey is found"


def test_on_a_phone_no_page_is_wider_than_the_screen(browser, report):
    """Tables scroll in their own frame."""
    browser.look(400)
    for page in sorted(report.glob("*.html")):
        browser.open(page)

        assert browser.run("return document.documentElement.scrollWidth") <= 400, page.name


def test_a_heading_sorts_by_value_with_mouse_or_keyboard_and_turns_round(browser, report):
    """As numbers, not as text; what has no number stays at the end."""
    browser.look()
    browser.open(report / "leaderboard.html")
    methods = "table tbody tr td:nth-child(2)"
    solve = "[...document.querySelectorAll('table thead th')].find((h) => h.textContent === 'solve')"
    assert browser.texts(methods) == ["better", "relu", "worse"]

    browser.run(f"{solve}.querySelector('button').click()")
    assert browser.texts(methods) == ["relu", "worse", "better"]
    assert browser.run(f"return {solve}.getAttribute('aria-sort')") == "ascending"
    browser.run(f"{solve}.querySelector('button').focus()")
    browser.press(ENTER)
    assert browser.texts(methods) == ["better", "worse", "relu"]
    assert browser.run(f"return {solve}.getAttribute('aria-sort')") == "descending"


def test_filters_leave_the_rows_that_fit_and_say_how_many(browser, report):
    browser.look()
    browser.open(report / "leaderboard.html")
    shown = "tbody tr:not([data-away]) td:nth-child(2)"

    browser.choose("select[name=method]", "relu")
    assert browser.texts(shown) == ["relu"]
    assert browser.texts("form output") == ["1 of 3 rows"]
    browser.choose("select[name=method]", "")
    browser.run("document.querySelector('input[name=find]').focus()")
    browser.press(*"wor")
    assert browser.texts(shown) == ["worse"]


def test_a_page_can_be_walked_with_the_keyboard(browser, report):
    """First stop: the link past the navigation; every stop can be seen."""
    browser.look()
    browser.open(report / "leaderboard.html")
    browser.press(TAB)
    assert browser.run("return document.activeElement.textContent") == "To the content"

    stops = []
    for _ in range(25):
        browser.press(TAB)
        stops.append(browser.run("const e = document.activeElement; return [e.tagName, getComputedStyle(e).outlineStyle]"))
    assert {tag for tag, _ in stops} >= {"A", "SELECT", "INPUT", "BUTTON", "DIV"}
    assert all(style != "none" for tag, style in stops if tag != "BODY")


def test_csv_holds_the_whole_numbers_in_the_order_and_with_the_rows_that_are_shown(browser, report):
    browser.look()
    browser.open(report / "leaderboard.html")
    browser.choose("input[name=find]", "method")
    browser.run("document.querySelector('.save').click()")
    saved = wait_for(lambda: list(browser.downloads.glob("board-*.csv")))

    rows = list(csv.reader(io.StringIO(saved[0].read_text())))
    assert rows[0][:3] == ["#", "method", "role"]
    assert [row[1] for row in rows[1:]] == ["better", "worse"]
    assert float(rows[1][4]) == pytest.approx(0.973, abs=1e-12)  # the number itself, not 0.973 ± 0.002


def test_a_command_is_copied_by_its_button(browser, report):
    browser.look()
    browser.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    browser.open(report / "leaderboard.html")
    button = browser.driver.find_element("css selector", ".command .copy")
    button.click()

    assert wait_for(lambda: button.text == "copied")


def test_the_pointer_over_a_mark_shows_what_it_is(browser, report):
    from selenium.webdriver import ActionChains

    browser.look()
    browser.open(report / "leaderboard.html")
    mark = browser.driver.find_element("css selector", "figure svg path[aria-label]")
    browser.run("arguments[0].scrollIntoView({block: 'center'})", mark)
    ActionChains(browser.driver).move_to_element(mark).perform()

    assert browser.texts("#tip")[0] == mark.get_attribute("aria-label")
    assert browser.run("return !document.getElementById('tip').hidden")


def test_without_script_every_number_is_there(browser, report):
    """The policy of a mail program may forbid it."""
    browser.look()
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(report / "leaderboard.html")
        text = browser.driver.find_element("css selector", "main").text
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    assert "better" in text
    assert "0.9" in text


def test_a_strangers_names_stay_text_on_every_page_and_in_every_chart(browser, hostile_report):
    """Whoever merges a registry from elsewhere must not run what is in it."""
    browser.look()
    for page in sorted(hostile_report.glob("*.html")):
        browser.open(page)

        assert browser.said() == [], page.name
        assert all(address.startswith("file:///") for address in browser.asked())
        assert browser.run("return document.querySelectorAll('img, iframe, object').length") == 0, page.name
        assert browser.run("return document.title") != "666"
    assert any("onerror" in text for text in browser.texts("body"))


def test_a_trials_drawing_is_seen_and_a_strangers_artefacts_do_nothing(browser, report_with_artefacts):
    """Drawn from a file beside the page; what could run or load is no picture, and a text stays text."""
    page = one(report_with_artefacts, "method-better")
    for width in (1280, 400):
        browser.look(width)
        browser.open(page)
        asked = {Path(address.partition("#")[0]).name for address in browser.asked()}
        pictures = browser.run("return [...document.images].map((i) => [i.alt, i.complete, i.naturalWidth, i.clientWidth])")

        assert browser.said() == []
        assert pictures == [["curves.svg", True, 200, 200]]
        assert {name.partition("-")[0] for name in asked - {page.name}} == {"report.css", "report.js", "artefact"}
        assert browser.run("return document.title") != "666"
        assert browser.run("return document.documentElement.scrollWidth") <= width
        assert browser.run(CONTRAST) == []
    assert any("<script>document.title=666</script>" in text for text in browser.texts("figure pre"))
    assert sum("not shown: an SVG" in text for text in browser.texts("figcaption")) == 2


def test_a_copy_that_is_opened_by_itself_does_nothing_either(browser, report_with_artefacts):
    """Out of its page no policy holds it: what was copied has nothing that runs, and HTML is a text file."""
    browser.look()
    for copy in sorted(report_with_artefacts.glob("artefact-*")):
        browser.open(copy)

        assert browser.said() == [], copy.name
        assert {Path(address).name for address in browser.asked()} == {copy.name}
        assert browser.run("return document.title") != "666"
        assert browser.run("return document.getElementsByTagName('script').length") == 0


@pytest.mark.timeout(1200)
@pytest.mark.skipif(screenshots() is None, reason="HARNESS_SCREENSHOTS names no folder")
def test_pictures_of_every_kind_of_page_are_kept_to_be_looked_at(browser, report, hostile_report, report_with_artefacts):
    folder = screenshots()
    assert folder is not None
    kinds = (
        "index",
        "leaderboard",
        "claims",
        "methods",
        "method-better",
        "compare",
        "kernels",
        "nightly",
        "machines",
        "attempts-d",
    )
    starts = {hostile_report: "hostile-", report_with_artefacts: "artefacts-"}
    others = [one(hostile_report, "leaderboard"), one(report_with_artefacts, "method-better")]
    for page in [*(one(report, kind) for kind in kinds), *others]:
        name = starts.get(page.parent, "") + page.stem
        for look, settings in LOOKS.items():
            browser.look(**settings)
            browser.open(page)
            browser.shoot(folder / f"{name}-{look}.png")

    assert len(list(folder.glob("*.png"))) >= len(LOOKS) * (len(kinds) + 2)
