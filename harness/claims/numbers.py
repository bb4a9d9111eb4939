"""From the cells of a rule to its numbers: one a seed, None where a value is missing or the number is none; and in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from statistics import median
from typing import Any

from harness.rules import Cell, Corr, Diff, Given, Number, Over, Rank, Ratio, Seeds, Share, Slope, Statistic, Tasks, cells
from harness.stats import mean_ranks, safe_mean

Shared = frozenset[tuple[str, object]]  # given to all cells of a rule
Values = Mapping[Cell, Sequence[float | None]]
OVER: Mapping[str, Callable[[Sequence[float]], float]] = {"mean": safe_mean, "min": min, "max": max, "median": median}


def numbers(node: Number, values: Values, n: int) -> tuple[float | None, ...]:
    """The node's value at each of the first n seeds."""
    found = [number(node, values, seed) for seed in range(n)]
    return tuple(None if value is None or math.isnan(value) else value for value in found)


def number(node: Number, values: Values, seed: int) -> float | None:
    """NaN where the seed's values are there and give no number: a slope of logarithms of 0, infinity less infinity."""
    if isinstance(node, Cell):
        return values[node][seed]
    if any(values[cell][seed] is None for cell in cells(node)):
        return None

    def of(part: Number) -> float:
        found = number(part, values, seed)
        assert found is not None, "every cell below has a value"
        return found

    match node:
        case Diff(a, b):
            return of(a) - of(b)
        case Ratio(a, b):
            return divide(of(a), of(b))
        case Slope(points, x, y):
            return slope([(scaled(at, x), scaled(of(part), y)) for at, part in points])
        case Over(nodes, how):
            many = [of(part) for part in nodes]
            return math.nan if any(map(math.isnan, many)) else float(OVER[how](many))
        case Rank(which, among, better):
            many = [of(cell) for cell in among]
            return math.nan if any(map(math.isnan, many)) else mean_ranks(many, better)[among.index(which)]


def divide(a: float, b: float) -> float:
    if b == 0.0:
        return math.nan if a == 0.0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)
    return a / b


def scaled(value: float, axis: str) -> float:
    if axis == "linear":
        return value
    return math.log(value) if value > 0 else math.nan


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least squares; NaN where it has no finite value."""
    x, y = [p[0] for p in points], [p[1] for p in points]
    if not all(map(math.isfinite, (*x, *y))):
        return math.nan
    mean_x, mean_y = safe_mean(x), safe_mean(y)
    spread = math.fsum((a - mean_x) ** 2 for a in x)
    return math.fsum((a - mean_x) * (b - mean_y) for a, b in points) / spread if spread else math.nan


# In words -------------------------------------------------------------------------------------------------------------


def words(node: Statistic, shared: Shared = frozenset()) -> str:
    """What a number is: "accuracy of crrelu - relu on digits (arch=mlp)". shared: what all cells of the rule are given."""
    match node:
        case Cell():
            return f"{node.metric} of {node.method} on {node.task}{bracket(node.given, shared)}"
        case Diff(Cell() as a, Cell() as b) if (a.metric, a.task, a.part) == (b.metric, b.task, b.part):
            return pair(a, "-", b, shared)
        case Ratio(Cell() as a, Cell() as b) if (a.metric, a.task, a.part) == (b.metric, b.task, b.part):
            return pair(a, "/", b, shared)
        case Diff(a, b):
            return f"[{words(a, shared)}] - [{words(b, shared)}]"
        case Ratio(a, b):
            return f"[{words(a, shared)}] / [{words(b, shared)}]"
        case Slope(points, x, y):
            name = {"log": "log ", "linear": ""}
            at = ", ".join(f"{p[0]:g}" for p in points)
            return f"slope of {name[y]}[{words(points[0][1], shared)}, ...] over {name[x]}{at}"
        case Over(nodes, how):
            rest = f", ... {len(nodes)} in all" if len(nodes) > 1 else ""
            return f"{how} of [{words(nodes[0], shared)}{rest}]"
        case Rank(of, among):
            where = f"{of.task}{bracket(of.given, shared)}"
            return f"rank of {of.method} among {len(among)} by {of.metric} on {where}"
        case Seeds(of, how):
            return words(of, shared) if how == "mean" else f"{how} over seeds of {words(of, shared)}"
        case Share(of, low, high):
            return f"share of seeds with {words(of, shared)} {within(low, high)}"
        case Tasks(nodes, how):
            alike = {without_task(one, len(nodes)) for one in nodes}
            what = (
                words(alike.pop(), shared) if len(alike) == 1 else f"{words(nodes[0], shared)}, ... {len(nodes)} tasks in all"
            )
            return f"{'mean' if how == 'mean' else 'pseudomedian'} over tasks of [{what}]"
        case Corr(a, b):
            return f"rank correlation of {words(a, shared)} with {words(b, shared)}"


def without_task(node: Any, tasks: int) -> Any:
    """A node whose cells are on "each of 20 tasks": what all nodes of a `Tasks` may have in common."""
    if isinstance(node, Cell):
        kept = tuple(item for item in node.given if not item[0].startswith(("task.", "budget.")))
        return replace(node, task=f"each of {tasks} tasks", given=kept)
    if isinstance(node, tuple):
        return tuple(without_task(one, tasks) for one in node)
    if is_dataclass(node) and not isinstance(node, type):
        return replace(node, **{f.name: without_task(getattr(node, f.name), tasks) for f in fields(node)})
    return node


def pair(a: Cell, sign: str, b: Cell, shared: Shared) -> str:
    both = tuple(item for item in a.given if item in b.given)
    own = [bracket(tuple(i for i in cell.given if i not in both), shared) for cell in (a, b)]
    return f"{a.metric} of {a.method}{own[0]} {sign} {b.method}{own[1]} on {a.task}{bracket(both, shared)}"


def bracket(given: Given, shared: Shared) -> str:
    text = ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in given if (name, value) not in shared)
    return f" ({text})" if text else ""


def within(low: float, high: float) -> str:
    """A closed range: ">= 1", "<= 0.84", "from 1 to 2"."""
    if math.isinf(low) and math.isinf(high):
        return "of any size"
    if math.isinf(high):
        return f">= {low:g}"
    return f"<= {high:g}" if math.isinf(low) else f"from {low:g} to {high:g}"


def ranges(seeds: Sequence[int]) -> str:
    """0-3, 7."""
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def shared_given(rule: object) -> Shared:
    """What every cell of a rule is given, if there are several: it tells none of them apart."""
    found = list(dict.fromkeys(cells(rule)))
    if len(found) < 2:
        return frozenset()
    return frozenset(set(found[0].given).intersection(*(cell.given for cell in found[1:])))


def unit_of(node: Statistic, units: Mapping[Cell, str]) -> str:
    """Of the number: a ratio, a share and a correlation have none, a slope of logarithms neither; a rank is one."""
    match node:
        case Cell():
            return units.get(node, "")
        case Diff(a, _) | Seeds(a, _):
            return unit_of(a, units)
        case Over(nodes, _) | Tasks(nodes, _):
            return unit_of(nodes[0], units)
        case Rank():
            return "rank"
        case _:
            return "1"
