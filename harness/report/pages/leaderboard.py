"""The leaderboard: each board a table with its intervals as bars, and quality against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from statistics import median

from harness.fairness import match_lines, tuning_lines
from harness.identity import canonical
from harness.leaderboard import Board, Row
from harness.pooling import Pool, PooledRow
from harness.report import charts, linking
from harness.report.blocks import Cell, Column, Figure, Page, Section, Span, Table
from harness.report.blocks import Row as Line
from harness.report.collecting import Collected
from harness.report.pages.sweeps import sweep_sections
from harness.report.words import (
    ARROWS,
    anchor,
    command,
    conditions,
    count,
    interval,
    literal,
    number,
    plural,
    seconds,
    settings,
    short,
    signed_word,
    size,
    task_label,
    where,
)
from harness.showing import one_line
from harness.stats import Interval

ROLES = {"baseline": "baseline", "ablation": "ablation", "control": "control", "oracle": "oracle"}
FURTHER = 3  # metrics beside the ranking one; the CSV of the attempts has all
FEW = 5
TIED = (
    "`better` and `worse` are as the ranks have it, adjusted for all pairs of the board (Holm); `tied`: the ranks that "
    "both can have overlap. The interval of a difference is of that one pair, unadjusted."
)
SIGNED_RANKS = "of Wilcoxon's signed ranks of the tasks' means, after Holm over the methods; it serves no verdict"
MOST_PROFILES = 6  # lines that can be told apart


def make_page(found: Collected) -> Page:
    boards = found.boards
    lead: tuple[str, ...] = (
        f"{plural(len(boards), 'board')}, each of one task, net, training, budget, device, dtype, threads and torch version: "
        "only what agrees in these is compared.",
        "Best first. Every number leads to its attempts.",
    )
    if not boards:
        lead = ("No attempt of a trial that measures quality is recorded yet; `harness run vision` makes some.",)
    filters = ("task", "device", "machine", "method")
    sections = (*(board_section(found, board) for board in boards), *sweep_sections(boards), *map(pool_section, found.pools))
    return Page("leaderboard.html", "leaderboard", "Leaderboard", lead, sections, filters=filters, contents=len(boards) > 3)


def board_section(found: Collected, board: Board) -> Section:
    name = linking.board_anchor(board)
    tags = board_tags(board)
    return Section(
        name, task_label(board), text=(settings(board), *notes(board)), tables=(board_table(found, board),), tags=tags
    )


def pool_section(pool: Pool) -> Section:
    """Several tasks together. It serves no verdict, and says so."""
    name = anchor("pool", pool.tasks, sorted(map(str, pool.shared.items())))
    lines = [
        "In brackets: 95 %, by a bootstrap within each task. It serves no verdict; below 10 seeds it is too narrow.",
        "Of the mean rank: 95 %, by t over the tasks.",
    ]
    if pool.metric:
        lines.append("IQM: the mean of the middle half of all seeds and tasks together.")
    else:
        lines.append("The tasks rank by different metrics, so there is no mean over them.")
    lines += [f"Left out: {short(method)}: {one_line(why)}." for method, why in pool.left_out.items()]
    columns = [Column("mean rank", "right"), Column("method", "short")]
    columns += [Column(f"IQM {one_line(pool.metric.name)} {ARROWS[pool.metric.better]}", "right")] if pool.metric else []
    columns += (
        [Column(f"P(beats {short(pool.baseline)})", "right", "the chance that a run is better than one of the baseline's")]
        if pool.baseline
        else []
    )
    tested = any(row.p is not None for row in pool.rows)
    columns += [Column(f"p, same as {short(pool.baseline)}", "right", SIGNED_RANKS)] if tested else []
    columns += [
        *(Column(one_line(task), "right") for task in pool.shown_tasks),
        Column("seeds", "right"),
        Column("failed", "right"),
    ]
    rows = []
    for row in pool.rows:
        cells = [bracketed(row.rank, 2), Cell(short(row.method), row.method, linking.method_file(row.ref))]
        cells += [bracketed(row.iqm, 4)] if pool.metric else []
        cells += [bracketed(row.improvement, 2)] if pool.baseline else []
        cells += [number(row.p)] if tested else []
        cells += [*map(interval, row.intervals if pool.shown_tasks else ()), count(row.runs), count(row.n_failed)]
        rows.append(Line(tuple(cells), {"method": short(row.method)}))
    title = f"{plural(len(pool.tasks), 'task')} together"
    table = Table(
        f"pool-{name}",
        tuple(columns),
        tuple(rows),
        title,
        sql=pool_sql(pool),
        command="harness leaderboard",
        figures=(*rank_figure(pool, name), *profile_figure(pool, name)),
    )
    where_ = where({**pool.shared})
    return Section(name, f"{title}: {', '.join(map(one_line, pool.tasks))}", text=(where_, *lines), tables=(table,))


def pool_sql(pool: Pool) -> str:
    """What is drawn from: the runs of these methods on these tasks, the latest of each series, failed ones without a value.

    Also those with parameters that stand on their own line or are left out of the pool: a column has them.
    """
    told = {name: canonical(value) if isinstance(value, dict) else value for name, value in pool.shared.items()}
    nets = {name: text for name, text in told.items() if name in ("net", "train")}
    # What is matched has a net of its own, and is on the board of the one that it was matched to.
    own = "".join(
        f" AND coalesce(CAST(json_extract(matched, '$.{name}') AS VARCHAR), {name}) IS NOT DISTINCT FROM "
        f"{'NULL' if text is None else literal(text)}"
        for name, text in nets.items()
    )
    shared = conditions(**{name: value for name, value in told.items() if name not in nets})
    metric = f" AND m.quantity = {literal(pool.metric.name)}" if pool.metric else ""
    tasks = ", ".join(f"({literal(task)}, {literal(given)})" for task, given in pool.refs)
    methods = ", ".join(sorted({literal(row.ref) for row in pool.rows}))
    chosen = f"a.method IN ({methods}) AND (a.task, a.task_params) IN ({tasks})"
    named = "attempt_id, method_params, method, task, task_params, seed, status"
    latest = f"SELECT {named} FROM v_latest WHERE {shared}{own}"
    columns = "a.method, a.method_params, a.task, a.task_params, a.seed, a.status, m.quantity, m.value, a.attempt_id"
    same = f"m.attempt_id = a.attempt_id AND m.part = 'test'{metric}"
    return f"SELECT {columns} FROM ({latest}) AS a LEFT JOIN measurements AS m ON {same} WHERE {chosen} ORDER BY ALL"


def bracketed(found: Interval | None, digits: int) -> Cell:
    """Not ±: a bootstrap's interval lies as it likes about its estimate."""
    if found is None:
        return Cell("")
    ends = "" if found.low is None or found.high is None else f" [{found.low:.{digits}g}, {found.high:.{digits}g}]"
    return Cell(f"{found.mean:.{digits}g}{ends}", found.mean)


def rank_figure(pool: Pool, name: str) -> Iterator[Figure]:
    """Mean ranks side by side. Intervals that do not meet say more than the test would; those that do may still differ."""
    dots = [
        charts.Dot(short(row.method), row.rank.mean, row.rank.low, row.rank.high, row.role, rank_text(row))
        for row in pool.rows
        if row.rank.low is not None and row.rank.high is not None
    ]
    if len(dots) == len(pool.rows):
        says = "; ".join(map(rank_text, pool.rows))
        middle = (len(pool.rows) + 1) / 2
        spec = charts.forest(dots, f"mean rank over {plural(len(pool.tasks), 'task')}, 95 % by t", at=middle)
        told = f"1 is best; the line is where all would be if nothing told them apart. {says}"
        yield Figure(f"ranks-{name}", "Mean ranks", told, spec)


def rank_text(row: PooledRow) -> str:
    return f"{short(row.method)}: mean rank {bracketed(row.rank, 2).text}"


def profile_figure(pool: Pool, name: str) -> Iterator[Figure]:
    """The share of runs that are better than a threshold: whose line is above is better there. The best few of the table."""
    if pool.metric is None or len(pool.taus) < 2:
        return
    lines = {
        row.method: [(tau, y, y, y) for tau, y in zip(pool.taus, row.profile, strict=True)] for row in pool.rows[:MOST_PROFILES]
    }
    metric = one_line(pool.metric.name)
    says = f"Share of runs with a better {metric} than the threshold, for the {len(lines)} methods of the best mean rank."
    yield Figure(
        f"profile-{name}",
        "Performance profile",
        says,
        charts.curves(lines, f"{metric} threshold", "share of runs", marks=False),
    )


def board_tags(board: Board) -> dict[str, str]:
    return {"task": task_label(board), "device": str(board.shared["device"]), "machine": one_line(board.shared["machine"])}


Made = tuple[Column, Callable[[Row, str], Cell]]


def board_table(found: Collected, board: Board) -> Table:
    columns = list(columns_of(found, board))
    rows = []
    for row in board.rows:
        href = linking.attempts_href(board, row.method)
        tags = {**board_tags(board), "method": short(row.method)}
        faint = not row.ranked or row.n_ok + row.n_failed < FEW
        rows.append(Line(tuple(make(row, href) for _, make in columns), tags, faint))
    return Table(
        name=f"board-{linking.board_anchor(board)}",
        columns=tuple(column for column, _ in columns),
        rows=tuple(rows),
        title=f"{task_label(board)}: methods",
        sql=board_sql(board),
        command=board_command(board),
        figures=tuple(cost_figure(board)),
    )


def columns_of(found: Collected, board: Board) -> Iterator[Made]:
    """The columns of a board, each with what makes its cells; those that would be empty are left out."""
    metric, (low, high) = board.metric, scale(board.rows)
    yield Column("#", "right", "the ranks that it can have: ties are not broken by chance"), lambda row, _: rank_cell(row)
    yield Column("method", "short"), lambda row, _: Cell(short(row.method), row.method, linking.method_file(row.ref))
    yield Column("role", "short"), lambda row, _: Cell(row.role)
    yield (
        Column("95 % interval", title="on a scale that the board's rows share"),
        lambda row, _: Cell("", None, span=span_of(row.interval, low, high)),
    )
    heading = f"{one_line(metric.name)} {ARROWS[metric.better]}"
    yield (
        Column(heading, "right", f"mean over seeds, ± half the 95 % t interval; {metric.unit}"),
        lambda row, href: interval(row.interval, href),
    )
    if board.baseline:
        heading = f"− {one_line(board.baseline)}"
        yield (
            Column(heading, "right", "paired difference, seed by seed"),
            lambda row, href: interval(row.difference, href, signed=True),
        )
    for m in [m for m in board.further if any(m.name in row.others for row in board.rows)][:FURTHER]:
        yield Column(f"{one_line(m.name)} {ARROWS[m.better]}", "right", m.unit), partial(further_cell, m.name)
    for region in sorted({region for row in board.rows for region in row.timings}):
        yield (
            Column(one_line(region).replace("_", " "), "right", "median of the fresh processes' medians"),
            partial(timing_cell, region),
        )
    if any(row.params is not None for row in board.rows):
        yield Column("params", "right"), lambda row, _: size_cell(row)
    if any(row.peak_bytes is not None for row in board.rows):
        yield (
            Column("memory", "right", "median of the peaks; on a CPU of the whole process"),
            lambda row, _: size(row.peak_bytes),
        )
    told = "median seconds of one solve; indicative, as trials may have run side by side"
    yield Column("solve", "right", told), lambda row, _: seconds(row.solve_s)
    yield Column("ok/failed", "right"), outcome_cell


def rank_cell(row: Row) -> Cell:
    if row.rank is None:
        return Cell("–")
    best, worst = row.rank
    return Cell(str(best) if best == worst else f"{best}–{worst}", best + worst / 1000)


def further_cell(metric: str, row: Row, href: str) -> Cell:
    return number(row.others.get(metric), href)


def timing_cell(region: str, row: Row, href: str) -> Cell:
    medians = row.timings.get(region)
    return seconds(median(medians)) if medians else Cell("")


def size_cell(row: Row) -> Cell:
    cell = count(row.params)
    if not row.mismatch:
        return cell
    return Cell(cell.text, cell.value, title=f"matched; {row.mismatch:+.2%} from the baseline")


def outcome_cell(row: Row, href: str) -> Cell:
    text = f"{row.n_ok}/{row.n_failed}"
    return Cell(text, row.n_ok, href, mark="bad" if row.n_failed else "")


def scale(rows: Iterable[Row]) -> tuple[float, float]:
    """The range of the bars; what diverged does not squeeze the others."""
    known = [row.interval for row in rows if row.interval and row.n_ok]
    ends = [v for i in known for v in (i.low, i.mean, i.high) if v is not None and math.isfinite(v) and abs(v) < charts.LARGEST]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def span_of(found: Interval | None, low: float, high: float, zero: float | None = None) -> Span | None:
    """The interval in percent of the scale; None where it cannot be drawn."""
    if found is None or not low < high or not charts.drawable(found.mean, high - low):
        return None

    def place(value: float) -> float:
        return round(min(100.0, max(0.0, 100 * (value - low) / (high - low))), 1)

    ends = [found.mean if end is None or not math.isfinite(end) else end for end in (found.low, found.high)]
    return Span(place(ends[0]), place(found.mean), place(ends[1]), None if zero is None else place(zero))


def notes(board: Board) -> list[str]:
    """What a reader must know beside the numbers."""
    lines = []
    if any(r.n_failed for r in board.rows):
        lines.append("A failed attempt counts as the metric's declared worst; where none is declared it is left out.")
    if any(r.n_unsupported for r in board.rows):
        names = ", ".join(short(r.method) for r in board.rows if r.n_unsupported)
        lines.append(f"Not supported here: {names}.")
    lines += [one_line(f"{line[:1].upper()}{line[1:]}.") for line in match_lines(board) + tuning_lines(board)]
    few = max((r.n_ok + r.n_failed for r in board.rows), default=0)
    if few < FEW:
        lines.append(
            f"{plural(few, 'seed')} only: intervals are indicative, and ranks stay tied; `--seeds 10` gives better ones."
        )
    return lines


def match_notes(board: Board, *rows: Row) -> list[str]:
    """How nearly these rows of it are matched, with the board that it is on."""
    lines = match_lines(replace(board, rows=rows))
    return [one_line(f"{task_label(board)}: {line}.") for line in lines]


def board_sql(board: Board) -> str:
    shared = board.shared
    wanted = conditions(
        task=shared["task"],
        device=shared["device"],
        dtype=shared["dtype"],
        threads=shared["threads"],
        torch_version=shared["torch_version"],
        machine=shared["machine"],
        quantity=board.metric.name,
        part="test",
    )
    return f"SELECT method, method_params, net, mean, sd, n_ok, n_failed FROM v_leaderboard WHERE {wanted}"


def board_command(board: Board) -> str:
    task = str(board.shared["task"]).rpartition("/")[2]
    return command("harness", "leaderboard", "--task", task, "--machine", str(board.shared["machine"]))


def cost_figure(board: Board) -> list[Figure]:
    """Quality against seconds, where there are at least three methods to place. The best at their price have their names."""
    rows = [r for r in board.rows if r.interval and r.solve_s and r.n_ok and charts.drawable(r.interval.mean)]
    if len(rows) < 3:
        return []
    front = {r.method for r in pareto(rows, higher=board.metric.better == "higher")}
    dots = []
    for r in rows:
        assert r.interval is not None
        assert r.solve_s is not None
        mean = r.interval.mean
        low, high = (mean if end is None else end for end in (r.interval.low, r.interval.high))
        tip = f"{one_line(r.method)}: {interval(r.interval).text} in {seconds(r.solve_s).text}"
        named = r.method in front or r.method == board.baseline
        dots.append(charts.Dot(r.method, r.solve_s, low, high, group_of(r), tip, y=mean, text=r.method if named else ""))
    title = f"{task_label(board)}: quality against cost"
    best = ", ".join(map(one_line, sorted(front)))
    says = f"{one_line(board.metric.name)} over the median seconds of one solve; the best at their price: {best}."
    spec = charts.cost_scatter(
        dots, "seconds of one solve (log)", f"{one_line(board.metric.name)} {ARROWS[board.metric.better]}"
    )
    return [Figure(f"cost-{linking.board_anchor(board)}", title, says, spec)]


def group_of(row: Row) -> str:
    return ROLES.get(row.role, "method")


def pareto(rows: Iterable[Row], *, higher: bool) -> list[Row]:
    """Those that no other is both better than and cheaper."""
    sign = -1.0 if higher else 1.0
    front: list[Row] = []
    for row in sorted(rows, key=lambda r: (r.solve_s or 0.0, sign * (r.interval.mean if r.interval else 0.0))):
        if not front or sign * row.interval.mean < sign * front[-1].interval.mean:  # type: ignore[union-attr]
            front.append(row)
    return front


def best_rows(board: Board) -> list[Row]:
    return [row for row in board.rows if row.ranked]


def standing_cell(row: Row, other: Row | None) -> Cell:
    """better, worse or tied, as the ranks of the board have it: adjusted for all of its pairs, also for a best that was
    chosen after looking."""
    if other is None or other is row or row.rank is None or other.rank is None:
        return Cell("")
    if row.rank[1] < other.rank[0]:
        return signed_word("better")
    return signed_word("worse" if other.rank[1] < row.rank[0] else "tied")


def baseline_of(board: Board) -> Row | None:
    return next((row for row in board.rows if row.method == board.baseline), None)
