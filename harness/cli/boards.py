"""Leaderboards and pools of tasks as tables, Markdown, CSV and JSON: the same numbers in each. Nothing is computed here."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, Literal

import click

from harness.cli.tables import (
    NEVER,
    Column,
    bar,
    console,
    interval_cell,
    number,
    print_columns,
    print_markdown_columns,
    say,
    scale,
)
from harness.fairness import match_lines, tuning_lines
from harness.identity import canonical
from harness.leaderboard import SHARED, Board, Row
from harness.pooling import Pool, PooledRow
from harness.showing import cell, finite, setting_texts
from harness.stats import Interval

Form = Literal["table", "json", "csv", "markdown"]

MARKS = {"baseline": "*", "ablation": "†", "control": "‡", "oracle": "§"}
ARROWS = {"higher": " ↑", "lower": " ↓", "neither": ""}
FURTHER_SHOWN = 3  # further metrics beside the ranking one; --json has all


def draw_leaderboards(boards: Sequence[Board], pools: Sequence[Pool] = (), form: Form = "table") -> None:
    """One table a board, best first; then one for each group of tasks that can be pooled."""
    if form == "json":
        made = {"boards": [dataclasses.asdict(b) for b in boards], "pools": [dataclasses.asdict(p) for p in pools]}
        click.echo(json.dumps(finite(made)))
    elif form == "csv":
        write_csv(boards, pools)
    elif form == "markdown":
        for board, title in zip(boards, titles(boards), strict=True):
            print_markdown_columns(title, board_columns(board), footnotes(board))
        for pool, title in zip(pools, titles(pools), strict=True):
            print_markdown_columns(title, pool_columns(pool), pool_footnotes(pool))
    else:
        draw_tables(boards, pools)


def draw_tables(boards: Sequence[Board], pools: Sequence[Pool]) -> None:
    out = console()
    if not boards:
        out.print("no attempts to rank yet")
    tables = [(title, board_columns(board), footnotes(board)) for board, title in zip(boards, titles(boards), strict=True)]
    tables += [(title, pool_columns(pool), pool_footnotes(pool)) for pool, title in zip(pools, titles(pools), strict=True)]
    common = said_by_all([lines for *_, lines in tables[: len(boards)]])
    for title, columns, lines in tables:
        hidden = print_columns(out, title, columns)
        say(out, [*not_shown(hidden), *(line for line in lines if line not in common)])
        out.print()
    say(out, common)


def titles(shown: Sequence[Board | Pool]) -> list[str]:
    """With the root seed where it tells those of one title apart."""
    plain = [board_title(one) if isinstance(one, Board) else pool_title(one) for one in shown]
    roots: dict[str, set[Any]] = {}
    for title, one in zip(plain, shown, strict=True):
        roots.setdefault(title, set()).add(one.shared.get("root_seed"))
    return [
        title + (f" | root seed {one.shared.get('root_seed')}" if len(roots[title]) > 1 else "")
        for title, one in zip(plain, shown, strict=True)
    ]


def said_by_all(notes: Sequence[Sequence[str]]) -> list[str]:
    """What stands below each of several tables needs to be said once."""
    first, *others = notes or ((),)
    return [line for line in first if all(line in lines for lines in others)]


def not_shown(headings: Sequence[str]) -> list[str]:
    """Without arrows: they are about columns."""
    names = [heading.rstrip(" ↑↓") for heading in headings]
    return [f"not shown: {', '.join(names)} (--json has all)"] if names else []


# One board ------------------------------------------------------------------------------------------------------------


def board_columns(board: Board) -> list[Column]:
    rows = board.rows
    low, high = scale(r.interval for r in rows if r.interval and r.n_ok)  # a diverged method does not squeeze the others
    made = [
        Column("rank", [rank_cell(row) for row in rows]),
        Column("method", [row.method + MARKS.get(row.role, "") for row in rows], right=False),
        Column("95 % interval", [bar(row.interval, low, high) for row in rows], right=False, drop=5, picture=True),
        Column(board.metric.name + ARROWS[board.metric.better], [interval_cell(row.interval) for row in rows]),
    ]
    if board.baseline:
        made.append(Column(f"- {board.baseline}", [interval_cell(row.difference, signed=True) for row in rows]))
    for i, metric in enumerate(board.further):
        drop = 10 + i + (NEVER if i >= FURTHER_SHOWN else 0)
        made.append(Column(metric.name + ARROWS[metric.better], [number(r.others.get(metric.name)) for r in rows], drop=drop))
    for region in sorted({region for row in rows for region in row.timings}):
        made.append(Column(f"{region} ms", [timing_cell(row.timings.get(region)) for row in rows]))
    if any(row.params is not None for row in rows):
        made.append(Column("params", ["" if row.params is None else f"{row.params:,}" for row in rows], drop=1))
    if any(row.flops is not None for row in rows):
        made.append(Column("FLOPs", [number(row.flops) for row in rows], drop=4))
    if any(row.peak_bytes is not None for row in rows):
        made.append(Column("MB", [megabytes(row.peak_bytes) for row in rows], drop=3))
    made.append(Column("solve s", [number(row.solve_s) for row in rows], drop=2))
    made.append(Column("ok/fail", [f"{row.n_ok}/{row.n_failed}" for row in rows]))
    return made


def rank_cell(row: Row) -> str:
    if row.rank is None:
        return ""
    best, worst = row.rank
    return str(best) if best == worst else f"{best}-{worst}"


def megabytes(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:,.0f}"


def timing_cell(medians: tuple[float, ...] | None) -> str:
    """Median of the processes' medians, with their range: what varies between processes is the doubt."""
    if not medians:
        return ""
    return f"{median(medians) * 1e3:.3g} ({min(medians) * 1e3:.3g}-{max(medians) * 1e3:.3g})"


def board_title(board: Board) -> str:
    budget = ", ".join(f"{k} {v:g}" for k, v in (board.shared["budget"] or {}).items()) or "no budget"
    setting, where = setting_texts(board.shared), where_of(board.shared)
    return " | ".join([board.task, *setting, budget, where])


def where_of(shared: Any) -> str:
    return f"{shared['device']} {shared['dtype']} {shared['threads']} thread{'s' if shared['threads'] > 1 else ''}"


def footnotes(board: Board) -> list[str]:
    """What a reader must know beside the numbers."""
    rows = board.rows
    lines = []
    if sum(row.rank is not None for row in rows) > 1:
        lines.append(
            "ranks are tied unless the difference, seed by seed, is beyond doubt (paired t at 5 %, Holm over all pairs)"
        )
    if board.baseline:
        lines.append(f"± is half the 95 % t interval over seeds; the difference to {board.baseline} is taken seed by seed")
    roles = [f"{MARKS[role]} {role}" for role in MARKS if any(r.role == role for r in rows)]
    if roles:
        lines.append(", ".join(roles) + (" (scored, not ranked)" if any(r.role == "oracle" for r in rows) else ""))
    if any(r.n_failed for r in rows):
        lines.append("failed attempts count as the metric's declared worst; where none is declared they are left out")
    if any(r.n_unsupported for r in rows):
        names = ", ".join(r.method for r in rows if r.n_unsupported)
        lines.append(f"unsupported here: {names} (`harness logs` says why)")
    lines += match_lines(board) + tuning_lines(board)
    if any(r.peak_bytes is not None for r in rows):
        lines.append(
            f"MB: peak memory of the {'process' if board.shared['device'] == 'cpu' else 'device'}; solve s: indicative"
        )
    few = max((r.n_ok + r.n_failed for r in rows), default=0)
    if few < 5:
        lines.append(
            f"{few} seed{'s' if few > 1 else ''}: intervals are indicative, and ranks stay tied; --seeds 10 gives better ones"
        )
    return lines


# One pool -------------------------------------------------------------------------------------------------------------


def pool_title(pool: Pool) -> str:
    return " | ".join([f"{len(pool.tasks)} tasks: {', '.join(pool.tasks)}", *setting_texts(pool.shared), where_of(pool.shared)])


def pool_columns(pool: Pool) -> list[Column]:
    rows = pool.rows
    made = [
        Column("mean rank", [range_cell(row.rank, digits=2) for row in rows]),
        Column("method", [row.method + MARKS.get(row.role, "") for row in rows], right=False),
    ]
    if pool.metric:
        low, high = scale(row.iqm for row in rows if row.iqm)
        made.append(Column("95 % interval", [bar(row.iqm, low, high) for row in rows], right=False, drop=5, picture=True))
        heading = f"IQM {pool.metric.name}{ARROWS[pool.metric.better]}"
        made.append(Column(heading, [range_cell(row.iqm) for row in rows]))
    if pool.baseline:
        made.append(Column(f"P(beats {pool.baseline})", [range_cell(row.improvement, digits=2) for row in rows]))
    if any(row.p is not None for row in rows):
        made.append(Column(f"p, same as {pool.baseline}", ["" if row.p is None else f"{row.p:.2g}" for row in rows]))
    for i, task in enumerate(pool.shown_tasks):
        made.append(Column(task, [interval_cell(row.intervals[i]) for row in rows], drop=10))
    made.append(Column("seeds", [str(row.runs) for row in rows]))
    made.append(Column("failed", [str(row.n_failed) for row in rows]))
    return made


def range_cell(interval: Interval | None, digits: int = 4) -> str:
    """Not ±: a bootstrap's interval lies as it likes about its estimate."""
    if interval is None:
        return ""
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.{digits}g}"
    return f"{interval.mean:.{digits}g} [{interval.low:.{digits}g}, {interval.high:.{digits}g}]"


def pool_footnotes(pool: Pool) -> list[str]:
    lines = []
    if pool.metric:
        lines.append("IQM: the mean of the middle half of all seeds and tasks together")
    if pool.baseline:
        lines.append(f"P(beats {pool.baseline}): the chance that a run is better than one of {pool.baseline} on the same task")
    lines.append(
        "in brackets: 95 %, by a bootstrap within each task; it serves no verdict, and below 10 seeds it is too narrow"
    )
    lines.append("of the mean rank: 95 %, by t over the tasks")
    if any(row.p is not None for row in pool.rows):
        lines.append("p: of Wilcoxon's signed ranks of the tasks' means, after Holm over the methods; it serves no verdict")
    if not pool.metric:
        lines.append("the tasks rank by different metrics, so there is no mean over them")
    lines += [f"left out: {name}: {why}" for name, why in pool.left_out.items()]
    return lines


# CSV ------------------------------------------------------------------------------------------------------------------


def write_csv(boards: Sequence[Board], pools: Sequence[Pool]) -> None:
    """One line a method and board, then one a method and pool; the first column says which. Empty: not measured."""
    lines = [board_line(board, row) for board in boards for row in board.rows]
    lines += [pool_line(pool, row) for pool in pools for row in pool.rows]
    writer = csv.writer(sys.stdout)
    names = list(dict.fromkeys(itertools.chain.from_iterable(lines)))
    writer.writerow(map(cell, names))
    writer.writerows([cell(line.get(name)) for name in names] for line in lines)


def board_line(board: Board, row: Row) -> dict[str, Any]:
    best, worst = row.rank or (None, None)
    line: dict[str, Any] = {"section": "board", "label": board.task, **shared_cells(board.shared, SHARED)}
    line |= {"metric": board.metric.name, "unit": board.metric.unit, "better": board.metric.better, "baseline": board.baseline}
    line |= {"method": row.method, "ref": row.ref, "given": canonical(dict(row.given)), "role": row.role}
    line |= {"rank_best": best, "rank_worst": worst, **interval_cells("", row.interval)}
    line |= {"n_ok": row.n_ok, "n_failed": row.n_failed, "n_unsupported": row.n_unsupported}
    line |= interval_cells("difference_", row.difference)
    line |= {name: getattr(row, name) for name in ("params", "flops", "peak_bytes", "solve_s", "mismatch")}
    line |= {f"mean_{metric.name}": row.others.get(metric.name) for metric in board.further}
    return line | {f"{region}_s": median(medians) for region, medians in row.timings.items()}


def pool_line(pool: Pool, row: PooledRow) -> dict[str, Any]:
    line: dict[str, Any] = {"section": "pool", "label": " + ".join(pool.tasks), **shared_cells(pool.shared, pool.shared)}
    if pool.metric:
        line |= {"metric": pool.metric.name, "unit": pool.metric.unit, "better": pool.metric.better}
    line |= {"baseline": pool.baseline, "method": row.method, "ref": row.ref, "role": row.role, "n_failed": row.n_failed}
    line |= interval_cells("iqm_", row.iqm) | interval_cells("improvement_", row.improvement)
    return line | {"mean_rank": row.rank.mean, "rank_low": row.rank.low, "rank_high": row.rank.high, "p_signed_rank": row.p}


def shared_cells(shared: Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: canonical(shared[name]) if isinstance(shared[name], dict) else shared[name] for name in names}


def interval_cells(prefix: str, interval: Interval | None) -> dict[str, Any]:
    return {f"{prefix}{name}": getattr(interval, name, None) for name in ("mean", "low", "high", "n")}
