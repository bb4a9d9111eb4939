"""Two sides against each other: methods seed by seed on every board that has both, or kernels, commits, days, machines."""

from __future__ import annotations

from collections.abc import Iterator

from harness.comparing import Comparison
from harness.comparing import Ratio as KernelRatio
from harness.leaderboard import Board, Row
from harness.report import charts, linking
from harness.report.blocks import Cell, Column, Figure, Page, Section, Table
from harness.report.blocks import Row as Line
from harness.report.collecting import Collected, pairs_of
from harness.report.pages.leaderboard import best_rows, board_tags, verdict_cell
from harness.report.words import ARROWS, command, interval, number, plural, seconds, settings, short, signed_word, task_label
from harness.showing import one_line
from harness.stats import Interval, paired_interval


def make_page(found: Collected, compared: tuple[str, str] | None) -> Page:
    pairs = list(board_pairs(found, compared))
    tables = [methods_table(found, pairs, compared)] if pairs else []
    sections = (
        [Section("methods", "Methods, seed by seed", text=tuple(environment_notes(found)), tables=tuple(tables))]
        if pairs
        else []
    )
    sections += [kernel_section(found.compared)] if found.compared is not None else []
    return Page(
        "compare.html",
        "compare",
        "Compare",
        tuple(lead_of(found, pairs, compared)),
        tuple(sections),
        filters=("task", "device", "machine") if pairs else (),
    )


Pair = tuple[Board, Row, Row, "Interval | None"]


def board_pairs(found: Collected, compared: tuple[str, str] | None) -> Iterator[Pair]:
    """(board, a, b, the paired difference a - b): the named two, or the best two."""
    for board in found.boards:
        if compared is None:
            rows = best_rows(board)[:2]
        else:
            by_name = {name: row for row in board.rows for name in (row.method, row.ref)}
            rows = [by_name[name] for name in compared if name in by_name]
        if len(rows) == 2:
            a, b = rows
            yield board, a, b, paired(found, board, a, b)


def paired(found: Collected, board: Board, a: Row, b: Row) -> Interval | None:
    left, right = (pairs_of(found, row.attempts, board.metric.name) for row in (a, b))
    both = sorted(left.keys() & right.keys())
    return paired_interval([left[k] for k in both], [right[k] for k in both]) if both else None


def lead_of(found: Collected, pairs: list[Pair], compared: tuple[str, str] | None) -> Iterator[str]:
    if compared is None and pairs:
        open_ = sum(1 for board, _, _, d in pairs if verdict_cell(d, board.metric.better).value == "open")
        yield (
            f"The best two of each of {plural(len(pairs), 'board')}: on {open_} of them the difference could be chance (its "
            "95 % interval holds zero). They were chosen after looking, so a gap that is just clear is no proof; "
            "`harness report --compare A B` compares two of your choice."
        )
    elif compared is not None:
        a, b = map(one_line, compared)
        words = [str(verdict_cell(d, board.metric.better).value or "") for board, _, _, d in pairs]
        told = ", ".join(
            f"{words.count(w)} {said}"
            for w, said in (("better", f"where {a} is better"), ("worse", f"where {b} is better"), ("open", "open"))
            if w in words
        )
        yield f"{a} against {b}: {plural(len(pairs), 'board')} with both" + (f"; {told}." if told else ".")
    else:
        yield "Nothing to compare yet: a board needs two methods; `harness run vision` makes some."


def environment_notes(found: Collected) -> Iterator[str]:
    yield "Paired by all but the method: task, net, budget, device, dtype, threads, seed. What differs is never compared."
    torches = sorted({str(b.shared["torch_version"]) for b in found.boards})
    machines = sorted({str(b.shared["machine"]) for b in found.boards})
    for what, names in (("torch versions", torches), ("machines", machines)):
        if len(names) > 1:
            listed = ", ".join(map(one_line, names))
            yield f"Records of {len(names)} {what} are here ({listed}): they stand on boards of their own."


def methods_table(found: Collected, pairs: list[Pair], compared: tuple[str, str] | None) -> Table:
    columns = (
        Column("board", "short"),
        Column("metric", "short"),
        Column("A", "short"),
        Column("B", "short"),
        Column("A's result", "right"),
        Column("B's result", "right"),
        Column("A − B", "right", "paired, 95 %"),
        Column("pairs", "right"),
        Column("A is"),
        Column("A's cost ÷ B's", "right", "median seconds of one solve"),
    )
    rows, dots = [], []
    for board, a, b, difference in pairs:
        hrefs = [linking.attempts_href(board, row.method) for row in (a, b)]
        ratio = a.solve_s / b.solve_s if a.solve_s and b.solve_s else None
        verdict = verdict_cell(difference, board.metric.better)
        cells = (
            Cell(task_label(board), href=linking.board_href(board), title=settings(board)),
            Cell(f"{one_line(board.metric.name)} {ARROWS[board.metric.better]}"),
            *(Cell(short(row.method), row.method, linking.method_file(row.ref)) for row in (a, b)),
            interval(a.interval, hrefs[0]),
            interval(b.interval, hrefs[1]),
            interval(difference, hrefs[0], signed=True),
            Cell("" if difference is None else str(difference.n), difference.n if difference else None),
            verdict,
            number(ratio),
        )
        rows.append(Line(cells, board_tags(board)))
        if difference is not None and charts.drawable(difference.mean):
            low, high = (difference.mean if end is None else end for end in (difference.low, difference.high))
            label = f"{task_label(board)}: {short(a.method)} − {short(b.method)}"
            word = str(verdict.value or "one seed")
            dots.append(
                (
                    board.metric.name,
                    charts.Dot(label, difference.mean, low, high, word, f"{label}: {interval(difference, signed=True).text}"),
                )
            )
    figures = []
    for at, name in enumerate(dict.fromkeys(metric for metric, _ in dots)):
        of = [dot for metric, dot in dots if metric == name]
        says = "; ".join(dot.tip for dot in of)
        figures.append(
            Figure(
                f"compare-{at}", f"{one_line(name)}: A − B", says, charts.forest(of, f"{one_line(name)}: A − B, 95 %", at=0.0)
            )
        )
    again = command("harness", "compare", *compared) if compared else "harness leaderboard"
    columns_of = "task, method, seed, pair_key, quantity, value"
    sql = f"SELECT {columns_of} FROM measurements WHERE part = 'test' AND status = 'ok' ORDER BY pair_key, method"
    return Table(
        "compare-methods", columns, tuple(rows), "Boards that have both", sql=sql, command=again, figures=tuple(figures)
    )


def kernel_section(compared: Comparison) -> Section:
    """Times of B over times of A, the largest changes first; what is the same is at the end."""
    text = tuple(
        f"The two sides differ in {one_line(d)}; times of different machines or torches say little." for d in compared.differs
    )
    ordered = sorted(
        compared.ratios,
        key=lambda r: (r.verdict in ("same", "ambiguous"), -abs(r.ratio - 1), sorted(map(str, r.where.items()))),
    )
    columns = (
        Column("kernel", "short"),
        Column("case"),
        Column("region", "short"),
        Column(one_line(compared.a), "right"),
        Column(one_line(compared.b), "right"),
        Column("ratio", "right", "time of B over time of A"),
        Column("95 %", "right"),
        Column("processes", "right"),
        Column("B is"),
    )
    rows = tuple(ratio_row(r) for r in ordered)
    shown = [r for r in ordered if r.low is not None and r.high is not None][:30]
    dots = [
        charts.Dot(ratio_label(r), r.ratio, r.low or 0.0, r.high or 0.0, r.verdict, f"{ratio_label(r)}: {r.ratio:.3f}")
        for r in shown
    ]
    figures: tuple[Figure, ...] = ()
    if dots:
        says = "; ".join(d.tip for d in dots[:10])
        spec = charts.forest(dots, f"time of {one_line(compared.b)} over {one_line(compared.a)}", [(0.97, 1.03)], at=1.0)
        figures = (Figure("compare-kernels-f", "Ratios of times", says, spec),)
    again = command("harness", "compare", "--kernels", compared.a, compared.b)
    told = "task, task_params, method, part, seed, value, attempt_id"
    sql = f"SELECT {told} FROM measurements WHERE kind = 'kernel' AND quantity = 'time' AND status = 'ok'"
    table = Table(
        "compare-kernels",
        columns,
        rows,
        f"{one_line(compared.a)} against {one_line(compared.b)}",
        sql=sql,
        command=again,
        figures=figures,
    )
    return Section("kernels", "Kernels, case by case", text=text, tables=(table,))


def ratio_label(r: KernelRatio) -> str:
    from harness.kernelboard import label_of

    return f"{short(r.where['kernel'])} {one_line(label_of(r.where))} {one_line(r.where['region']).replace('_', '+')}"


def ratio_row(r: KernelRatio) -> Line:
    from harness.kernelboard import label_of

    ends = "" if r.low is None or r.high is None else f"{r.low:.3f} to {r.high:.3f}"
    cells = (
        Cell(short(r.where["kernel"])),
        Cell(one_line(label_of(r.where))),
        Cell(one_line(r.where["region"]).replace("_", "+")),
        seconds(r.a_s),
        seconds(r.b_s),
        Cell(f"{r.ratio:.3f}", r.ratio),
        Cell(ends),
        Cell(f"{r.n_a} / {r.n_b}"),
        signed_word(r.verdict),
    )
    return Line(cells, {"device": one_line(r.where["device"])}, faint=r.verdict in ("same", "ambiguous"))
