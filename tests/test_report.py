"""The pages as files: what they say, what they never hold, and that the same records give the same bytes."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from harness.cli.main import cli
from harness.errors import HarnessError, MissingError
from harness.pooling import make_pools
from harness.registry import Registry
from harness.report import charts, drawing, make_report
from harness.report.blocks import Cell, Page
from harness.report.collecting import collect
from harness.report.pages import compare, make_pages, methods, overview
from harness.report.pages.claims import estimate_cell, levels_of, short_labels, sql_of, word_of
from harness.report.pages.kernels import roofs_of
from harness.report.pages.leaderboard import pool_sql, standing_cell, timing_cell
from tests.registry_samples import make_attempt
from tests.report_samples import (
    HOSTILE,
    HOSTILE_PAPER,
    NET,
    PAPER,
    board,
    everything,
    hostile,
    hostile_verdict,
    kernels,
    quality,
    registry_of,
    verdict,
)

ALLOWED = (
    "class id href content charset name http-equiv rel src defer lang title type role tabindex scope hidden value "
    "autocomplete data-for data-of data-copy data-tagged viewbox preserveaspectratio points width height d "
    "transform fill fill-opacity stroke opacity font-family font-size font-style font-weight text-anchor display "
    "clip-path x y x1 x2 y1 y2 cx cy r"
)
VOID = {"meta", "link", "br", "input", "img", "col", "hr"}


class Parsed(HTMLParser):
    """A page's elements with their attributes, ids, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def ids(self) -> list[str]:
        return [str(a["id"]) for _, a in self.elements if "id" in a]

    @property
    def links(self) -> list[str]:
        return [str(a["href"]) for tag, a in self.elements if tag == "a"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """For reading: something for every page."""
    return everything(tmp_path_factory.mktemp("all") / "registry")


@pytest.fixture(scope="module")
def made(registry: Registry) -> list[Page]:
    return list(make_pages(collect(registry, [PAPER], [verdict()])))


@pytest.fixture(scope="module")
def pages(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("made") / "report"
    make_report(registry, folder, [PAPER], verdicts=[verdict()])
    return {file.name: file.read_text() for file in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def hostile_pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("hostile")
    opened = hostile(folder / "registry")
    make_report(opened, folder / "report", [HOSTILE_PAPER], {HOSTILE: {"summary": HOSTILE}}, [hostile_verdict()])
    return {file.name: file.read_text() for file in sorted((folder / "report").iterdir())}


def test_the_first_page_says_the_verdict_first(pages):
    """Who opens it knows without scrolling what is wrong."""
    text = Parsed(pages["index.html"]).text
    lead = next(t for t in text if "attempts of" in t)

    assert lead.startswith("1 series regressed; 1 trial failed")
    assert "Claims: 1 supported." in lead


def test_every_page_is_well_formed_and_every_link_leads_somewhere(pages):
    parsed = {name: Parsed(text) for name, text in pages.items() if name.endswith(".html")}

    for name, page in parsed.items():
        assert not page.wrong, name
        assert not page.open, name
        assert len(page.ids) == len(set(page.ids)), name
        for link in page.links:
            file, _, fragment = link.partition("#")
            assert not file or file in parsed, f"{name}: {link}"
            assert not fragment or fragment in parsed[file or name].ids, f"{name}: {link}"


def test_every_number_of_a_board_leads_to_the_attempts_that_it_rests_on(pages):
    """From a mean to its seeds, from a seed to its log."""
    board_page = pages["leaderboard.html"]
    link = re.search(r'href="(attempts-digits[^"]+)#(\w+)">0\.9[67]', board_page)
    assert link
    section = pages[link[1]].partition(f'id="{link[2]}"')[2].partition("</section>")[0]

    assert section.count('data-copy="harness logs ') == 5


def test_merged_in_any_order_and_folded_the_same_records_give_the_same_bytes(tmp_path):
    """A report can be compared with the one of another copy; no time, path or order of files is in it."""
    a, b = tmp_path / "a", tmp_path / "elsewhere" / "b"
    registry_of(a, [*board(), *kernels()[:6]])
    loose = Registry.open(b)
    for attempt in reversed([*board(), *kernels()]):
        loose.append(attempt)
    for name, sources in (("c", (b, a)), ("d", (a, b))):
        merged = Registry.open(tmp_path / name)
        for source in sources:
            merged.merge(source)
        make_report(merged, tmp_path / f"report-{name}", [PAPER], verdicts=[verdict()])
    Registry.open(tmp_path / "d").compact(everything=True)
    make_report(Registry.open(tmp_path / "d", create=False), tmp_path / "report-e", [PAPER], verdicts=[verdict()])

    c, d, e = ({f.name: f.read_bytes() for f in (tmp_path / f"report-{name}").iterdir()} for name in "cde")
    assert c == d == e
    assert not any(str(tmp_path).encode() in content for content in c.values())


def test_what_several_processes_draw_is_the_same_to_the_byte(registry, pages, tmp_path, monkeypatch):
    """A registry of thousands of charts is shared among the cores."""
    monkeypatch.setattr("harness.report.rendering.MANY", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})

    make_report(registry, tmp_path / "report", [PAPER], verdicts=[verdict()])

    assert {file.name: file.read_text() for file in (tmp_path / "report").iterdir()} == pages


REFERENCE = Path(__file__).parents[1] / "registry" / "reference"


def test_the_sql_beside_each_table_runs_and_gives_the_boards_means(registry, made):
    """What stands beside a figure is what gives it, not a decoration."""
    told = {t.sql: t.name for p in made for s in p.sections for t in s.tables if t.sql}
    answers = {name: registry.query(sql).to_pylist() for sql, name in told.items() if not name.startswith("t-")}
    rows = next(rows for name, rows in answers.items() if name.startswith("board-"))
    means = {row.method: row.interval.mean for row in collect(registry).boards[0].rows if row.interval}

    assert len(answers) > 15
    assert all(rows for name, rows in answers.items() if not name.startswith(("failures", "data", "claims")))
    assert {r["method"].rpartition("/")[2]: r["mean"] for r in rows} == pytest.approx(means)


def test_the_sql_of_a_pool_and_of_the_ledger_gives_their_numbers():
    """On the committed records: the mean of every method without failures on every pooled task, the values of judged claims."""
    reference = Registry.open(REFERENCE, create=False)
    pools = [pool for pool in make_pools(collect(reference).boards) if pool.metric]
    for pool in pools:
        values: dict[tuple[str, str], list[float]] = {}
        for found in reference.query(pool_sql(pool)).to_pylist():
            values.setdefault((found["method"], found["task"]), []).append(found["value"])
        for row in (row for row in pool.rows if not row.n_failed and "(" not in row.method):
            for (task, _), interval in zip(pool.refs, row.intervals, strict=True):
                own = values[row.ref, task]
                assert interval is None or len(own) != row.runs or sum(own) / len(own) == pytest.approx(interval.mean)
    ledger = reference.query(sql_of(["selu", "lipsdp"])).to_pylist()

    assert len(pools) >= 3
    assert {row["claim"].partition(".")[0] for row in ledger} == {"selu", "lipsdp"}
    assert len([row for row in ledger if row["value"] is not None]) > 500


def test_a_label_keeps_what_tells_it_from_the_others():
    """Of long settings a chart's margin shows the beginning alone, which all conditions of a claim may share."""
    told = ["accuracy of a (grid=3, order=3, norm=layer) - relu", "accuracy of a (grid=3, order=3, norm=layer) - silu"]
    apart = ["accuracy of a (grid=3, order=3, norm=layer)", "accuracy of a (grid=5, order=3, norm=layer)"]

    assert list(short_labels(told).values()) == ["accuracy of a (…) - relu", "accuracy of a (…) - silu"]
    assert list(short_labels(apart).values()) == apart


def test_every_command_on_a_page_is_one_that_the_command_line_takes(made):
    """A command to copy that fails is worse than none."""
    tables = [t for p in made for s in p.sections for t in s.tables]
    told = {c.copy for t in tables for r in t.rows for c in r.cells if c.copy} | {t.command for t in tables if t.command}
    told |= {f.cell.copy for p in made for s in p.sections for f in s.facts if f.cell.copy}

    assert len(told) > 10
    for text in sorted(told):
        words = shlex.split(text)
        assert words[0] == "harness"
        command, rest, context = cli, words[1:], click.Context(cli)
        while isinstance(command, click.Group):
            command, rest = command.get_command(context, rest[0]), rest[1:]
        assert command is not None, text
        command.make_context(command.name, rest, parent=context)


def test_nothing_that_a_stranger_wrote_becomes_an_element_or_an_attribute_of_its_own(hostile_pages):
    """A registry may be merged from anybody: a name is text, in tables, links, charts, file names and JSON."""
    allowed = set(ALLOWED.split())
    for name, text in hostile_pages.items():
        assert re.fullmatch(r"[a-z0-9.-]+", name)
        if not name.endswith(".html"):
            continue
        page = Parsed(text)
        assert not page.wrong
        for tag, attributes in page.elements:
            assert tag not in ("img", "iframe", "object", "embed", "base", "style"), name
            strange = {a for a in attributes if a not in allowed and not a.startswith(("aria-", "stroke-"))}
            assert not strange, f"{name}: <{tag}> {strange}"
            assert attributes.get("src") in (None, "report.js")
            assert not re.match(r"\s*(javascript|data|https?):", attributes.get("href") or ""), name
        assert "\u202e" not in text
        assert "49" not in [t.strip() for t in page.text]
    assert any("onerror" in t for name, text in hostile_pages.items() if name.endswith(".html") for t in Parsed(text).text)


@pytest.mark.parametrize(
    "spec",
    [
        charts.forest([charts.Dot("a", 1.0, 0.5, 1.5, "supported", "tip")], "accuracy", [(0.0, float("inf"))], 0.0),
        charts.strips({"a": [(1.0, "tip"), (2.0, "tip")]}, "accuracy"),
        charts.cost_scatter([charts.Dot("a", 1.0, 0.5, 1.5, "method", "tip", y=1.0, text="a")], "seconds", "accuracy"),
        charts.curves({"a": [(1.0, 1.0, 0.9, 1.1), (10.0, 2.0, 1.9, 2.1)]}, "samples", "accuracy", log=True, log_y=True),
        charts.roofline([charts.Dot("1M", 1.0, 0, 0, "ours", "tip", y=1e9, text="hot")], {"1M": (1e10, 5e10)}, "cold"),
        charts.history([("monday", 1.0), ("tuesday", 1.2)], "s", 1, (1.0, 1.2)),
    ],
    ids=["forest", "strips", "cost", "curves", "roofline", "history"],
)
def test_every_kind_of_chart_is_one_that_altair_knows_and_is_drawn(spec):
    altair = pytest.importorskip("altair")
    altair.Chart.from_dict(drawing.configured(spec))

    svg = drawing.draw(spec, "c1", "a title", "what it says")

    assert svg.startswith("<svg")
    assert "what it says" in svg


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e305, 0.0, -1.0])
def test_a_chart_of_what_diverged_is_drawn_without_it(value):
    """A number that no axis can hold is in the table; it must not take the page down."""
    dots = [
        charts.Dot("a", value, value, value, "g", "t", y=value, text="hot"),
        charts.Dot("b", 1.0, 0.5, 1.5, "g", "t", y=1.0, text="hot"),
    ]
    for spec in (
        charts.forest(dots, "x", [(value, float("inf"))], value),
        charts.strips({"a": [(value, "t")]}, "x"),
        charts.cost_scatter(dots, "x", "y"),
        charts.curves({"a": [(value, value, value, value)]}, "x", "y", log=True, log_y=True),
        charts.roofline(dots, {"a": (1e10, 5e10)}, "cold"),
        charts.history([("n", value), ("m", 1.0)], "s", 0, (value, 1.0)),
    ):
        assert drawing.draw(spec, "c", "t", "s").startswith("<svg")


def test_a_picture_that_could_load_or_run_something_is_refused():
    for inner in (
        "<script>1</script>",
        '<image href="http://x"/>',
        '<a href="x"/>',
        '<rect onclick="1"/>',
        '<rect style="x"/>',
    ):
        with pytest.raises(ValueError, match="is not drawn here"):
            drawing.clean(f'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1">{inner}</svg>', "n", "t", "s")


def test_an_empty_registry_has_pages_that_say_what_to_run(tmp_path):
    make_report(Registry.open(tmp_path / "registry"), tmp_path / "report")

    assert "harness run smoke" in (tmp_path / "report" / "index.html").read_text()
    assert {"leaderboard.html", "claims.html", "kernels.html", "nightly.html", "machines.html"} <= {
        f.name for f in (tmp_path / "report").iterdir()
    }


def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_is(tmp_path):
    """-o is mistyped more easily than a thesis is written again."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")

    with pytest.raises(HarnessError, match=r"holds what is no report \(thesis\.tex\); name an empty or a new folder with -o"):
        make_report(Registry.open(tmp_path / "registry"), folder)
    assert (folder / "thesis.tex").read_text() == "x"


def test_a_report_that_cannot_be_made_leaves_the_old_one(tmp_path, monkeypatch):
    """Half a report looks like a whole one."""
    registry = registry_of(tmp_path / "registry", board())
    make_report(registry, tmp_path / "report")
    before = {f.name: f.read_bytes() for f in (tmp_path / "report").iterdir()}
    monkeypatch.setitem(sys.modules, "vl_convert", None)

    with pytest.raises(MissingError, match=r"needs vl-convert .*; pip install 'paper-harness\[report\]'"):
        make_report(registry, tmp_path / "report")
    assert {f.name: f.read_bytes() for f in (tmp_path / "report").iterdir()} == before
    assert sorted(f.name for f in tmp_path.iterdir()) == ["registry", "report"]


def test_attempts_without_a_start_time_or_a_machine_of_facts_are_shown_too(tmp_path):
    """A stranger's records may lack what ours always have."""
    registry = registry_of(tmp_path / "registry", [make_attempt(1, started_at="")])

    assert make_report(registry, tmp_path / "report").attempts == 1


def test_a_comparison_of_two_methods_says_which_is_better_on_each_board(registry):
    page = compare.make_page(collect(registry, compared=("relu", "better")), ("relu", "better"))

    assert page.lead[0].endswith("B against A: 1 better.")
    assert cell_of(page, "contrasts", 0, "B is").text == "better"


def test_a_name_that_means_nothing_is_refused_before_a_page_is_written(registry, tmp_path):
    with pytest.raises(HarnessError, match="no method, machine, environment, commit or date here"):
        make_report(registry, tmp_path / "report", compared=("relu", "gleu"))
    assert not (tmp_path / "report").exists()


def test_the_command_writes_the_pages_and_says_where(tmp_path):
    registry_of(tmp_path / "registry", board())
    ended = CliRunner().invoke(cli, ["report", "-o", str(tmp_path / "r"), "--registry", str(tmp_path / "registry")])

    assert ended.exit_code == 0, ended.output
    assert "index.html" in ended.stdout
    assert Path(tmp_path / "r" / "index.html").is_file()


def cell_of(page: Page, table: str, row: int, column: str) -> Cell:
    found = next(t for s in page.sections for t in s.tables if t.name.startswith(table))
    return found.rows[row].cells[[c.name for c in found.columns].index(column)]


def test_a_method_is_better_only_where_the_ranks_do_not_overlap(tmp_path):
    """The best was chosen after looking: an interval of one pair would say `better` where the leaderboard says tied."""
    roles = {"relu": "baseline", "b": "method", "c": "method"}
    noisy = [
        quality(10 * at + s, m, s, 0.9 + 0.02 * at * (s + 1) / 4, role=roles[m]) for at, m in enumerate(roles) for s in range(2)
    ]
    tied = collect(registry_of(tmp_path / "registry", noisy))
    first = next(iter(methods.make_pages(tied)))

    row, other = tied.boards[0].rows[:2]
    words = [
        standing_cell(replace(row, rank=a), replace(other, rank=b)).text
        for a, b in (((1, 2), (3, 3)), ((4, 5), (1, 3)), ((1, 2), (2, 3)))
    ]

    assert words == ["better", "worse", "tied"]
    assert cell_of(overview.make_page(tied), "best", 0, "best is").text == "tied"
    assert all(cell_of(first, "methods", at, "first on").text == "" for at in range(3))


def test_a_failed_seed_is_shown_and_paired_with_what_it_counts_as(registry):
    found = collect(registry)
    page = next(p for p in methods.make_pages(found) if p.title == "worse")
    rows = {row.method: row for row in found.boards[0].rows}
    pair = compare.paired(rows["worse"], rows["relu"])

    assert cell_of(page, "seeds-", 3, "worse").text == "oom, counts as 0"
    assert cell_of(page, "seeds-", 3, "difference").value == pytest.approx(-cell_of(page, "seeds-", 3, "relu").value)
    assert pair is not None
    assert (pair.n, pair.mean) == (5, pytest.approx(rows["worse"].difference.mean))


def test_seeds_of_two_root_seeds_stand_apart(tmp_path):
    """One seed number of two roots is two seeds: else the one would cover the other."""
    roles = {"relu": "baseline", "b": "method"}
    twice = [
        quality(100 * root + 10 * at + s, m, s, 0.9 + 0.01 * root, role=roles[m], root_seed=root)
        for root in (1, 2)
        for at, m in enumerate(roles)
        for s in range(2)
    ]
    page = next(p for p in methods.make_pages(collect(registry_of(tmp_path / "registry", twice))) if p.title == "b")
    sections = [s for s in page.sections if any(t.name.startswith("seeds-") for t in s.tables)]

    assert [(s.title, len(s.tables[0].rows)) for s in sections] == [
        ("digits, mlp, root_seed 1", 2), ("digits, mlp, root_seed 2", 2)
    ]  # fmt: skip


def test_places_that_say_different_things_of_a_claim_disagree(registry):
    """The favourable word of two would hide the other machine."""
    claim, one = PAPER.claims[0], verdict()

    assert word_of(claim, [one, replace(one, word="refuted", machine="other")]) == "disagrees"
    assert word_of(claim, [one, replace(one, machine="other")]) == "supported"
    assert word_of(claim, [one, replace(one, word="inconclusive", n=0)]) == "supported"


def test_a_decision_says_at_which_level_its_interval_is_and_what_would_refute():
    decision = verdict().decisions[0]
    every = replace(decision, every=True, confidence=1.0, refuting_confidence=1.0)

    assert levels_of(decision) == "95 %"
    assert levels_of(replace(decision, refuting_confidence=0.975)) == "95 %; to refute 97.5 %"
    assert estimate_cell(every).text == "mean 0.05, least to greatest 0.03 to 0.07"


def test_a_failure_that_was_mended_is_none_and_what_was_interrupted_is_none(tmp_path):
    failed = {"status": "failed", "error": "ValueError: no"}
    attempts = [
        quality(1, "a", 0, 0.9, **failed),
        quality(2, "a", 0, 0.9, code_digest="mended"),
        quality(3, "b", 0, 0.9, status="interrupted"),
        quality(4, "c", 0, 0.9, **failed),
        quality(5, "c", 0, 0.9, status="interrupted"),
    ]
    found = collect(registry_of(tmp_path / "registry", attempts))

    assert [a["method"] for a in found.failed] == ["paper-harness/c"]


def test_the_parts_of_a_forest_share_one_scale_and_a_word_has_one_colour():
    """A shaded range on a scale of its own contradicts the dots; a one-sided one runs to the edge of what is shown."""
    dot = charts.Dot("a", 0.5, 0.4, 0.6, "refuted", "tip")
    spec = charts.forest([dot], "accuracy", [(0.55, float("inf"))], at=0.45)
    scales = [layer["encoding"]["x"]["scale"] for layer in spec["layer"]]
    other = charts.forest([replace(dot, group="supported"), dot], "accuracy")
    colours = [dict(zip(*s["layer"][-1]["encoding"]["color"]["scale"].values(), strict=True)) for s in (spec, other)]

    assert all(scale == scales[0] and scale["zero"] is False for scale in scales)
    assert spec["layer"][0]["data"]["values"] == [{"x": 0.55, "x2": scales[0]["domain"][1]}]
    assert colours[0]["refuted"] == colours[1]["refuted"] != colours[1]["supported"]


def test_a_reading_lies_under_the_roof_of_its_own_size():
    """What fits into a cache is copied faster: under one roof for all sizes a kernel in memory looks slow."""
    found = roofs_of(
        {"10k": (5e10, 9e10), "1M": (7.8e10, 9e10), "1M strided": (7.9e10, 9e10), "16Mi": (2e10, 9e10), "1": (1e7, 9e10)}
    )

    assert [sorted(cases) for cases, _, _ in found.values()] == [["10k"], ["1M", "1M strided"], ["16Mi"]]
    assert list(found) == ["10k: 50 GB/s", "1M: 78.5 GB/s", "16Mi: 20 GB/s"]


def test_contrasts_of_one_task_are_told_apart_by_the_settings_that_differ(tmp_path):
    """Two rows of one name are one row of a chart."""
    attempts = [a for at, lr in enumerate((0.1, 0.01)) for a in board(100 * at, train={"lr": lr})]
    page = compare.make_page(
        collect(registry_of(tmp_path / "registry", attempts), compared=("relu", "better")), ("relu", "better")
    )
    table = page.sections[-1].tables[0]
    rows = {value["row"] for value in table.figures[0].spec["data"]["values"]}

    assert sorted(cell_of(page, "contrasts", at, "task").text for at in range(2)) == [
        "digits, mlp, lr 0.01",
        "digits, mlp, lr 0.1",
    ]
    assert len(rows) == 2


def test_the_median_of_two_processes_lies_between_them(registry):
    row = replace(collect(registry).boards[0].rows[0], timings={"forward": (1.0, 3.0)})

    assert timing_cell("forward", row, "").value == 2.0


def test_what_was_matched_says_how_nearly_where_it_is_compared(tmp_path):
    matched = {"unit": "params", "to": "paper-harness/relu", "where": "net.width", "value": 9, "mismatch": 0.02}
    wider = {"net": {**NET, "width": 9}, "matched": {**matched, "net": NET, "train": {"lr": 0.001}}}
    attempts = [quality(s, "relu", s, 0.9 + 0.01 * s * s, role="baseline") for s in range(3)]
    attempts += [quality(10 + s, "better", s, 0.95 + 0.01 * s, **wider) for s in range(3)]
    page = compare.make_page(
        collect(registry_of(tmp_path / "registry", attempts), compared=("relu", "better")), ("relu", "better")
    )
    told = [line for section in page.sections for line in section.text]

    assert "digits, mlp: matched to relu by params: better +2.00%." in told
