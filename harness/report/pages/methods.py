"""A page for each method: its paper and claims, results seed by seed, curves on every clock, cost, and how it failed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.leaderboard import Board, Row
from harness.records import FAILURES
from harness.report import charts, linking
from harness.report.artefacts import Artefact
from harness.report.blocks import Cell, Column, Exhibit, Fact, Figure, Page, Section, Span, Table
from harness.report.blocks import Row as Line
from harness.report.collecting import Attempt, Collected, CurvePoint
from harness.report.pages.claims import claims_table, decisions_table, full_name, verdicts_of
from harness.report.pages.leaderboard import TIED, baseline_of, match_notes, rank_cell, span_of, standing_cell
from harness.report.words import (
    ARROWS,
    anchor,
    attempt_cell,
    command,
    conditions,
    count,
    interval,
    last_line,
    literal,
    number,
    plural,
    seconds,
    settings,
    short,
    signed_word,
    size,
    task_label,
)
from harness.showing import one_line
from harness.specs import Paper
from harness.stats.intervals import t_quantile

CLOCKS = {"samples_seen": "samples seen", "flops": "FLOPs", "wall_s": "seconds of training"}
SAME_AS = {"steps": "samples_seen"}  # a clock that goes in step with another one has no chart of its own
MOST_FAILURES = 50


def make_pages(found: Collected) -> Iterator[Page]:
    uses = uses_of(found)
    yield index_page(found, uses)
    for ref, on in sorted(uses.items()):
        yield method_page(found, ref, on)


def uses_of(found: Collected) -> dict[str, list[tuple[int, int]]]:
    """Reference -> (board's number, row's number) where the method stands."""
    uses: dict[str, list[tuple[int, int]]] = {}
    for i, board in enumerate(found.boards):
        for at, row in enumerate(board.rows):
            uses.setdefault(row.ref, []).append((i, at))
    return uses


def paper_of(found: Collected, ref: str, on: Sequence[tuple[int, int]]) -> Paper | None:
    """By what its attempts say; else by what the catalogue declares."""
    ids = [id for i, at in on for id in found.boards[i].rows[at].attempts]
    names = [str(found.attempts[id]["paper"]) for id in ids if id in found.attempts and found.attempts[id]["paper"]]
    named = names[0] if names else found.method_kinds.get(ref, {}).get("paper", "")
    return found.papers.get(named)


def index_page(found: Collected, uses: dict[str, list[tuple[int, int]]]) -> Page:
    rows = []
    for ref, on in sorted(uses.items()):
        told = found.method_kinds.get(ref, {})
        paper = paper_of(found, ref, on)
        placed = [found.boards[i].rows[at] for i, at in on]
        first = sum(1 for i, at in on if found.boards[i].rows[at].rank == (1, 1))
        failed = sum(r.n_failed for r in placed)
        rows.append(
            Line(
                (
                    Cell(short(ref), ref, linking.method_file(ref)),
                    Cell(one_line(told.get("kind", ""))),
                    Cell(one_line(paper.name) if paper else "–"),
                    Cell(one_line(told.get("summary", ""))),
                    Cell(str(len(on)), len(on)),
                    Cell(str(first) if first else "", first),
                    Cell(f"{sum(r.n_ok for r in placed)}/{failed}", None, mark="bad" if failed else ""),
                ),
                {"paper": one_line(paper.name) if paper else "–"},
            )
        )
    columns = (
        Column("method"),
        Column("kind"),
        Column("paper"),
        Column("what it is"),
        Column("boards", "right"),
        Column("first on", "right", "boards on which no other can have rank 1"),
        Column("ok/failed", "right"),
    )
    table = Table(
        "methods",
        columns,
        tuple(rows),
        "Methods",
        sql="SELECT method, count(*) AS attempts FROM attempts WHERE kind <> 'kernel' GROUP BY method ORDER BY method",
        command="harness list methods",
    )
    lead = (
        f"{plural(len(uses), 'method')} were run. Each has a page: its paper's claims, every seed, curves, cost, "
        "failures, how to run it again.",
    )
    return Page(
        "methods.html", "methods", "Methods", lead, (Section("all", "All methods", tables=(table,)),), filters=("paper",)
    )


def method_page(found: Collected, ref: str, on: Sequence[tuple[int, int]]) -> Page:
    paper = paper_of(found, ref, on)
    told = found.method_kinds.get(ref, {})
    sections = [about(found, ref, on, paper)]
    if paper is not None and paper.claims:
        judged = [
            t for c in paper.claims for t in decisions_table(full_name(paper, c), verdicts_of(found, full_name(paper, c)))
        ]
        sections.append(
            Section("claims", f"What {one_line(paper.name)} claims", tables=(claims_table(found, [paper]), *judged))
        )
    results = Section("results", "Results", tables=(results_table(found, on),))
    # The verdict first, where there is one.
    sections.insert(
        len(sections) if any(v.paper == paper.name for v in found.verdicts) else 1, results
    ) if paper else sections.append(results)
    sections += [board_section(found, i, at) for i, at in on]
    sections.append(Section("failures", "Failures", tables=(failures_table(found, ref),)))
    return Page(
        linking.method_file(ref),
        "methods",
        short(ref),
        (lead_of(found, on, told.get("summary", "")),),
        tuple(sections),
        contents=True,
    )


def lead_of(found: Collected, on: Sequence[tuple[int, int]], summary: str) -> str:
    """Where it stands, in a sentence."""
    told = []
    for i, at in on:
        board = found.boards[i]
        row = board.rows[at]
        place = f"rank {rank_cell(row).text} of {sum(r.ranked for r in board.rows)}" if row.rank else "not ranked"
        told.append(f"{task_label(board)}: {place}")
    start = f"{one_line(summary).rstrip('.')}. " if summary else ""
    return start + "; ".join(told[:6]) + (f"; and {len(told) - 6} more boards" if len(told) > 6 else "") + "."


def about(found: Collected, ref: str, on: Sequence[tuple[int, int]], paper: Paper | None) -> Section:
    told = found.method_kinds.get(ref, {})
    ids = [id for i, at in on for id in found.boards[i].rows[at].attempts]
    suites = linking.suites_of(found, ids)
    facts = [Fact("reference", Cell(one_line(ref)))]
    if told.get("kind"):
        facts.append(Fact("kind", Cell(one_line(told["kind"]))))
    if paper is not None:
        facts.append(Fact("paper", Cell(f"{one_line(paper.title)}, arXiv {one_line(paper.arxiv)} ({paper.year})")))
    if told.get("source"):
        facts.append(Fact("source", Cell(one_line(told["source"]))))
    for suite in suites:
        again = command("harness", "run", suite, "--force", "--method", ref.rpartition("/")[2])
        facts.append(Fact(f"run it again ({one_line(suite)})", Cell(again, copy=again)))
    for board in found.kernels:
        if board.kernel == ref:
            facts.append(
                Fact("kernel", Cell(f"{short(ref)}, {one_line(board.shared['device'])}", href=linking.kernel_href(board)))
            )
    describe = command("harness", "describe", ref.rpartition("/")[2])
    facts.append(Fact("its parameters", Cell(describe, copy=describe)))
    return Section("about", "About", tuple(facts))


def results_table(found: Collected, on: Sequence[tuple[int, int]]) -> Table:
    columns = (
        Column("board", "short"),
        Column("verdict"),
        Column("metric", "short"),
        Column("result", "right", "mean over seeds, ± half the 95 % t interval"),
        Column("baseline"),
        Column("difference", title="paired, 95 %; the line is no difference"),
        Column("paired difference", "right"),
        Column("solve", "right"),
        Column("× baseline", "right", "seconds over the baseline's"),
        Column("memory", "right", "median of the peaks; on a CPU of the whole process"),
        Column("params", "right"),
        Column("ok/failed", "right"),
    )
    rows = []
    for i, at in on:
        board = found.boards[i]
        row = board.rows[at]
        href = linking.attempts_href(board, row.method)
        base = baseline_of(board)
        ratio = row.solve_s / base.solve_s if base and base is not row and base.solve_s and row.solve_s else None
        cells = (
            Cell(task_label(board), href=linking.board_href(board)),
            standing_cell(row, base),
            Cell(f"{one_line(board.metric.name)} {ARROWS[board.metric.better]}"),
            interval(row.interval, href),
            Cell(one_line(board.baseline) or "–"),
            Cell("", None, span=difference_span(board, row)),
            interval(row.difference, href, signed=True),
            seconds(row.solve_s),
            number(ratio),
            size(row.peak_bytes),
            count(row.params),
            Cell(f"{row.n_ok}/{row.n_failed}", row.n_ok, href, mark="bad" if row.n_failed else ""),
        )
        rows.append(Line(cells))
    notes = [line for i, at in on for line in match_notes(found.boards[i], found.boards[i].rows[at])]
    return Table(
        "results",
        columns,
        tuple(rows),
        "On every board",
        notes=(f"A difference is taken seed by seed. {TIED}", *notes),
    )


def difference_span(board: Board, row: Row) -> Span | None:
    """On the scale of the board's differences, with zero on it."""
    known = [r.difference for r in board.rows if r.difference is not None and r.n_ok]
    ends = [
        v for d in known for v in (d.low, d.mean, d.high) if v is not None and math.isfinite(v) and abs(v) < charts.LARGEST
    ] + [0.0]
    return span_of(row.difference, min(ends), max(ends), 0.0)


def board_section(found: Collected, i: int, at: int) -> Section:
    board = found.boards[i]
    row = board.rows[at]
    base = next((k for k, r in enumerate(board.rows) if r.method == board.baseline), None)
    name = anchor("on", linking.board_anchor(board), row.method)
    table = seeds_table(found, i, row, None if base is None else board.rows[base], name)
    curves = curve_table(found, i, at, base, name)
    title = task_label(board) + (f": {short(row.method)}" if "(" in row.method else "")
    tables = (table, *([curves] if curves else []))
    shown, exhibits = exhibits_of(found, board, row)
    return Section(name, title, text=(settings(board),), tables=tables, exhibits=exhibits, shown=shown)


def exhibits_of(found: Collected, board: Board, row: Row) -> tuple[str, tuple[Exhibit, ...]]:
    """What a trial of the method saved, and which trial it was."""
    ids = [id for id in row.attempts if found.artefacts.get(id)]
    if not ids:
        return "", ()
    id = ids[0]
    a = found.attempts[id]
    logs = command("harness", "logs", one_line(id)[:16])
    value = found.values.get(id, {}).get(board.metric.name)
    told = "" if value is None else f", {one_line(board.metric.name)} {value:.4g}"
    says = f"What seed {a['seed']} saved, of those that saved something the one in the middle{told} (`{logs}`)."
    return says, tuple(exhibit_of(artefact) for artefact in found.artefacts[id])


def exhibit_of(artefact: Artefact) -> Exhibit:
    note = f"{one_line(artefact.media_type)}, {size(artefact.size_bytes).text}"
    return Exhibit(
        title=short(artefact.name),
        note=f"{note}; not shown: {one_line(artefact.why)}" if artefact.why else note,
        lies=f"blobs/{one_line(artefact.sha256)}",
        file=artefact.file,
        picture=artefact.picture,
        text=artefact.text,
        folded="" if artefact.picture or not artefact.text else "its text" if artefact.whole else "its beginning",
    )


def seeds_table(found: Collected, i: int, row: Row, base: Row | None, name: str) -> Table:
    """Every seed of the method beside the baseline's; what failed with what it counts as."""
    board = found.boards[i]
    metric = board.metric
    pair = base is not None and base is not row
    own = by_pair(found, i, row)
    other = by_pair(found, i, base) if base is not None and pair else {}
    columns = [Column("seed", "right"), Column(short(row.method), "right")]
    columns += [Column(short(base.method), "right"), Column("difference", "right")] if base is not None and pair else []
    href = linking.attempts_href(board, row.method)
    keys = sorted(own.keys() | other.keys(), key=lambda k: seed_order((own.get(k) or other[k]).attempt))
    rows = []
    for key in keys:
        mine, theirs = own.get(key), other.get(key)
        cells = [seed_cell((mine or other[key]).attempt), seed_value(mine, href)]
        if base is not None and pair:
            known = mine and theirs and mine.value is not None and theirs.value is not None
            difference = mine.value - theirs.value if known else None  # type: ignore[operator,union-attr]
            cells += [
                seed_value(theirs, linking.attempts_href(board, base.method)),
                Cell("" if difference is None else f"{difference:+.4g}", difference),
            ]
        rows.append(Line(tuple(cells)))
    dots = {row.method: dots_of(row.method, own)}
    if base is not None and pair:
        dots[base.method] = dots_of(base.method, other)
    title = f"{one_line(metric.name)} of every seed"
    says = "; ".join(
        f"{one_line(m)}: {len(v)} seeds from {min(x for x, _ in v):.4g} to {max(x for x, _ in v):.4g}"
        for m, v in dots.items()
        if v
    )
    figures = (
        (Figure(f"seeds-{name}", title, says, charts.strips(dots, f"{one_line(metric.name)} {ARROWS[metric.better]}")),)
        if any(dots.values())
        else ()
    )
    methods = ", ".join(literal(r.ref) for r in ([row, base] if base is not None and pair else [row]))
    shared = board.shared
    wanted = conditions(
        task=shared["task"], machine=shared["machine"], device=shared["device"], quantity=metric.name, part="test"
    )
    chosen = f"{wanted} AND method IN ({methods}) ORDER BY method, seed"
    sql = f"SELECT method, seed, value, attempt_id FROM measurements WHERE {chosen}"
    return Table(
        f"seeds-{name}-t",
        tuple(columns),
        tuple(rows),
        title,
        sql=sql,
        figures=figures,
        folded=f"{plural(len(rows), 'seed')} in numbers",
    )


@dataclass(frozen=True)
class Score:
    """What an attempt counts as on its board; None: it is left out, as the metric declares no worst."""

    attempt: Attempt
    value: float | None

    @property
    def text(self) -> str:
        """Of a failed one also why it counts as that."""
        shown = "" if self.value is None else f"{self.value:.4g}"
        if self.attempt["status"] == "ok":
            return shown
        return f"{one_line(self.attempt['status'])}, " + (f"counts as {shown}" if shown else "left out")


def by_pair(found: Collected, i: int, row: Row) -> dict[str, Score]:
    """By what pairs attempts: all but the method. Of two attempts of one pair the later counts."""
    quantity, scores = found.boards[i].metric.name, {}
    for id in row.attempts:
        a = found.attempts.get(id)
        if a is not None and a["kind"] == "quality":
            value = found.values.get(id, {}).get(quantity) if a["status"] == "ok" else found.worst[i]
            if a["status"] in FAILURES or value is not None:
                scores[a["pair_key"] or id] = Score(a, value)
    return scores


def seed_order(a: Attempt) -> tuple[int, str]:
    return (a["seed"] or 0, str(a["pair_key"]))


def seed_cell(a: Attempt) -> Cell:
    return Cell(str(a["seed"]), a["seed"])


def seed_value(score: Score | None, href: str) -> Cell:
    if score is None:
        return Cell("", None)
    return Cell(score.text, score.value, href, mark="" if score.attempt["status"] == "ok" else "bad")


def dots_of(method: str, scores: Mapping[str, Score]) -> list[tuple[float, str]]:
    shown = sorted(scores.values(), key=lambda s: seed_order(s.attempt))
    return [
        (s.value, f"{one_line(method)}, seed {s.attempt['seed']}: {s.text}")
        for s in shown
        if s.value is not None and charts.drawable(s.value)
    ]


def curve_table(found: Collected, i: int, at: int, base: int | None, name: str) -> Table | None:
    """Learning curves against the baseline's, on every clock that was counted; None where nothing was offered on the way."""
    board = found.boards[i]
    rows_at = [at] + ([base] if base is not None and base != at else [])
    quantities = [q for (b, r, q, _) in found.curves if b == i and r == at]
    if not quantities:
        return None
    quantity = board.metric.name if board.metric.name in quantities else sorted(set(quantities))[0]
    clocks = sorted({c for (b, r, q, c) in found.curves if b == i and r == at and q == quantity}, key=clock_order)
    drawn = [c for c in clocks if SAME_AS.get(c) not in clocks]
    figures = tuple(curve_figure(found, i, rows_at, quantity, clock, name) for clock in drawn)
    own = {c: found.curves[i, at, quantity, c] for c in clocks}
    steps = own[clocks[0]]
    columns = [Column(CLOCKS.get(c, one_line(c)), "right") for c in clocks]
    columns += [Column(f"{one_line(quantity)}, {short(board.rows[r].method)}", "right") for r in rows_at]
    lines = []
    for k, _ in enumerate(steps):
        cells = [number(own[c][k].at) for c in clocks if k < len(own[c])]
        for r in rows_at:
            points = found.curves.get((i, r, quantity, clocks[0]), ())
            cells.append(number(points[k].mean) if k < len(points) else Cell("", None))
        lines.append(Line(tuple(cells)))
    notes = ["The mean over seeds with its 95 % interval, on the test part, which no training saw."]
    if "flops" not in clocks:
        notes.append("FLOPs were not counted: the budget of these trials is on another clock.")
    shared = board.shared
    wanted = conditions(
        task=shared["task"],
        machine=shared["machine"],
        method=board.rows[at].ref,
        quantity=quantity,
        part="test",
    )
    sql = f"SELECT seed, clocks, value FROM curves WHERE {wanted} ORDER BY seed, at_wall_s"
    return Table(
        f"curve-{name}-t",
        tuple(columns),
        tuple(lines),
        f"{one_line(quantity)} along the way",
        tuple(notes),
        sql,
        figures=figures,
        folded=f"{len(lines)} points in numbers",
    )


def clock_order(clock: str) -> tuple[int, str]:
    known = list(CLOCKS)
    return (known.index(clock) if clock in known else len(known), clock)


def curve_figure(found: Collected, i: int, rows_at: Sequence[int], quantity: str, clock: str, name: str) -> Figure:
    board = found.boards[i]
    lines = {board.rows[r].method: [band(p) for p in found.curves.get((i, r, quantity, clock), ())] for r in rows_at}
    axis = CLOCKS.get(clock, one_line(clock))
    says = "; ".join(f"{one_line(m)} from {v[0][1]:.4g} to {v[-1][1]:.4g}" for m, v in lines.items() if v)
    spec = charts.curves(lines, axis, one_line(quantity))
    return Figure(f"curve-{anchor(clock)}-{name}", f"{one_line(quantity)} over {axis}", says, spec)


def band(point: CurvePoint) -> tuple[float, float, float, float]:
    half = t_quantile(0.975, point.n - 1) * point.sd / math.sqrt(point.n) if point.sd is not None and point.n > 1 else 0.0
    return point.at, point.mean, point.mean - half, point.mean + half


def failures_table(found: Collected, ref: str) -> Table:
    """By cause, then one by one; also what is not supported here."""
    those = [a for a in (*found.failed, *found.unsupported) if a["method"] == ref]
    causes = Counter((str(a["status"]), last_line(a["error"]) or one_line(a["limit_fired"] or "")) for a in those)
    rows = [
        Line((signed_word(one_line(status)), Cell(str(n), n), Cell(cause), first_of(those, status, cause)))
        for (status, cause), n in sorted(causes.items(), key=lambda item: (-item[1], item[0]))[:MOST_FAILURES]
    ]
    columns = (Column("status"), Column("trials", "right"), Column("cause"), Column("one of them"))
    sql = f"SELECT attempt_id, status, error, seed, task FROM attempts WHERE {conditions(method=ref)} AND status <> 'ok'"
    notes = () if rows else ("The latest attempt of every trial ended well.",)
    return Table("failures-t", columns, tuple(rows), "By cause", notes, sql=sql, command="harness status --failed")


def first_of(those: Sequence[Attempt], status: str, cause: str) -> Cell:
    for a in those:
        if str(a["status"]) == status and (last_line(a["error"]) or one_line(a["limit_fired"] or "")) == cause:
            return attempt_cell(a["attempt_id"])
    return Cell("")
