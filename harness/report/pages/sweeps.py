"""One metric against a number of the task: boards that differ in nothing but a size, a depth, a noise, drawn as one picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.identity import canonical
from harness.leaderboard import Board, Row
from harness.report import charts
from harness.report.blocks import Cell, Column, Figure, Section, Table
from harness.report.blocks import Row as Line
from harness.report.words import ARROWS, anchor, conditions, interval, literal, settings, short
from harness.showing import one_line
from harness.stats import Interval
from harness.strangers import is_number

Lines = dict[str, list[tuple[float, float, float, float]]]

FEWEST = 3  # values: two points are no trend
MOST_LINES = 8  # that can be told apart
SPREAD = 20.0  # from here on the values are drawn by their logarithm


@dataclass(frozen=True)
class Sweep:
    """Boards that agree in all but `parameter` of their task, by its values, which ascend."""

    task: str
    parameter: str
    boards: tuple[tuple[float, Board], ...]


def find_sweeps(boards: Sequence[Board]) -> list[Sweep]:
    """In the order of the boards. A board may be of several, one a parameter."""
    found: dict[str, dict[float, Board]] = {}
    names: dict[str, tuple[str, str]] = {}
    for board in boards:
        params = board.shared["task_params"]
        for name, value in (params if isinstance(params, Mapping) else {}).items():
            if is_number(value) and name.isidentifier():  # of a name that no harness writes no picture is owed
                key = canonical([board.metric.name, name, rest_of(board.shared, name)])
                found.setdefault(key, {})[float(value)] = board
                names[key] = (str(board.shared["task"]), name)
    return [
        Sweep(*names[key], tuple(sorted(of.items(), key=lambda pair: pair[0])))
        for key, of in found.items()
        if len(of) >= FEWEST
    ]


def rest_of(shared: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What boards share, without one parameter of the task."""
    params = {key: value for key, value in shared["task_params"].items() if key != name}
    return {**shared, "task_params": params}


def sweep_sections(boards: Sequence[Board]) -> Iterator[Section]:
    """A table and a picture a sweep: the mean of each method with its interval, where it has three values or more."""
    for sweep in find_sweeps(boards):
        lines = lines_of(sweep)
        if lines:
            yield section(sweep, lines)


def section(sweep: Sweep, lines: Lines) -> Section:
    first = sweep.boards[0][1]
    metric, parameter = one_line(first.metric.name), one_line(sweep.parameter)
    title = f"{metric} {ARROWS[first.metric.better]} against {parameter} of {short(sweep.task)}"
    name = anchor("sweep", sweep.task, sweep.parameter, canonical(rest_of(first.shared, sweep.parameter)))
    others = {key: value for key, value in first.shared["task_params"].items() if key != sweep.parameter}
    told = ", ".join(f"{one_line(key)} {one_line(str(value))}" for key, value in sorted(others.items()))
    columns = (Column(parameter, "right"), *(Column(short(method), "right", first.metric.unit) for method in lines))
    rows = [
        Line((Cell(f"{value:g}", value), *(interval(found_at(board, method)) for method in lines)))
        for value, board in sweep.boards
    ]
    table = Table(
        f"sweep-{name}", columns, tuple(rows), title, sql=sweep_sql(sweep), command="harness leaderboard",
        figures=(figure(name, title, sweep, lines),),
    )  # fmt: skip
    tags = {"task": short(sweep.task), "device": str(first.shared["device"]), "machine": one_line(first.shared["machine"])}
    return Section(name, title, text=(settings(first), f"In all of them: {told}."), tables=(table,), tags=tags)


def figure(name: str, title: str, sweep: Sweep, lines: Lines) -> Figure:
    """By the logarithm where the values are far apart and all of them above 0."""
    points = [point for of in lines.values() for point in of]
    by_log = min(low for *_, low, _ in points) > 0 and max(y for _, y, *_ in points) > SPREAD * min(y for _, y, *_ in points)
    says = f"{title}: {len(sweep.boards)} values, a line a method; the band is the 95 % interval over its seeds."
    y_title = one_line(sweep.boards[0][1].metric.name) + (" (log)" if by_log else "")
    spec = charts.curves({short(method): of for method, of in lines.items()}, one_line(sweep.parameter), y_title, log_y=by_log)
    return Figure(f"sweep-{name}", title, says, spec)


def sweep_sql(sweep: Sweep) -> str:
    shared = sweep.boards[0][1].shared
    told = {name: shared[name] for name in ("device", "dtype", "threads", "torch_version", "machine")}
    wanted = conditions(task=shared["task"], **told, quantity=sweep.boards[0][1].metric.name, part="test")
    swept = f"CAST(json_extract(task_params, {literal(f'$.{sweep.parameter}')}) AS DOUBLE) AS swept"
    columns = f"{swept}, task_params, method, method_params, mean, sd, n_ok, n_failed"
    return f"SELECT {columns} FROM v_leaderboard WHERE {wanted} ORDER BY ALL"


def found_at(board: Board, method: str) -> Interval | None:
    return next((row.interval for row in board.rows if row.method == method), None)


def lines_of(sweep: Sweep) -> Lines:
    """Method -> (value, mean, low, high), ranked methods as the board of the largest value has them; three points a line."""
    lines: Lines = {row.method: [] for row in reversed_rows(sweep)}
    for value, board in sweep.boards:
        for row in board.rows:
            if row.ranked and row.interval is not None and charts.drawable(row.interval.mean):
                lines[row.method].append((value, *ends(row)))
    drawn = [(method, points) for method, points in lines.items() if len(points) >= FEWEST]
    return dict(drawn[:MOST_LINES])


def reversed_rows(sweep: Sweep) -> Iterator[Row]:
    """Rows of the board with the largest value first: there the methods lie furthest apart."""
    for _, board in reversed(sweep.boards):
        yield from board.rows


def ends(row: Row) -> tuple[float, float, float]:
    """Mean and interval; the mean alone where one seed has no interval."""
    assert row.interval is not None
    low, high = row.interval.low, row.interval.high
    mean = row.interval.mean
    return (mean, low, high) if low is not None and high is not None and charts.drawable(low, high) else (mean, mean, mean)
