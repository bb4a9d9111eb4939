"""The words in which a claim's rule is written: frozen, printable, hashable data. Judging them is `harness.claims`' work.

Numbers per seed: Cell, Diff, Ratio, Slope, Over, Rank. Numbers over seeds: Seeds, Share, Corr; over tasks: Tasks. Decisions,
three-valued: Within, Every, All, AtLeast. `better`, `non_inferior` and `solved_share` are shorthands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from math import inf, isfinite, isnan
from typing import Any, Literal

FEWEST_TASKS = 10  # a sample of fewer decides nothing, as with seeds
Given = tuple[tuple[str, str | int | float | bool | None], ...]


@dataclass(frozen=True)
class Cell:
    """The value of one metric for one method on one task, per seed. given: further parameters, as "method.eps", "net.arch"."""

    method: str
    task: str
    metric: str
    given: Given = ()
    part: str = "test"
    at: str = "end"


@dataclass(frozen=True)
class Diff:
    """a - b, seed by seed."""

    a: Number
    b: Number


@dataclass(frozen=True)
class Ratio:
    """a / b, seed by seed."""

    a: Number
    b: Number


@dataclass(frozen=True)
class Slope:
    """Least-squares slope of the nodes over x, seed by seed; each axis linear or logarithmic."""

    points: tuple[tuple[float, Number], ...]
    x: Literal["linear", "log"] = "log"
    y: Literal["linear", "log"] = "log"


@dataclass(frozen=True)
class Over:
    """mean, min, max or median of several nodes, seed by seed (the best of the rivals, say)."""

    nodes: tuple[Number, ...]
    how: Literal["mean", "min", "max", "median"]


@dataclass(frozen=True)
class Rank:
    """The rank of `of` among `among`, seed by seed; 1 is best, ties share their mean rank."""

    of: Cell
    among: tuple[Cell, ...]
    better: Literal["higher", "lower"] = "higher"


Number = Cell | Diff | Ratio | Slope | Over | Rank


@dataclass(frozen=True)
class Seeds:
    """One number over the seeds."""

    node: Number
    how: Literal["mean", "median", "iqm"] = "mean"


@dataclass(frozen=True)
class Share:
    """The share of seeds whose node lies in [low, high], with its exact binomial interval."""

    node: Number
    low: float = -inf
    high: float = inf


@dataclass(frozen=True)
class Corr:
    """Spearman's correlation of a and b over the seeds."""

    a: Number
    b: Number


@dataclass(frozen=True)
class Tasks:
    """One number over tasks, from one node a task. The sample is the tasks: a node's mean over the seeds is one value of it.

    how: signed-rank: the pseudomedian, with the interval of Wilcoxon's test; mean: the mean, with the t interval.
    """

    nodes: tuple[Number, ...]
    how: Literal["signed-rank", "mean"] = "signed-rank"


Statistic = Number | Seeds | Share | Corr | Tasks


@dataclass(frozen=True)
class Within:
    """Supported: the interval lies inside (low, high), not touching; refuted: beyond by more than slack; else inconclusive."""

    node: Statistic
    low: float = -inf
    high: float = inf
    slack: float = 0.0


@dataclass(frozen=True)
class Every:
    """Each single value lies in [low, high]; one counterexample refutes; fewer than at_least values are inconclusive."""

    node: Number
    low: float = -inf
    high: float = inf
    at_least: int = 5


@dataclass(frozen=True)
class All:
    """Supported if all are; refuted if one is."""

    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class AtLeast:
    """Supported if k of the rules are; refuted if too few can still be."""

    k: int
    rules: tuple[Rule, ...]


Rule = Within | Every | All | AtLeast


def given(**parameters: Any) -> Given:
    """Parameters of a Cell in canonical order; a double underscore in a name is a dot (net__arch -> net.arch)."""
    return tuple(sorted((name.replace("__", "."), value) for name, value in parameters.items()))


def better(treatment: str, control: str, task: str, metric: str, by: float = 0.0, **parameters: Any) -> Within:
    """treatment exceeds control by more than `by` (higher is better), both under the same parameters."""
    where = given(**parameters)
    return Within(Diff(Cell(treatment, task, metric, where), Cell(control, task, metric, where)), low=by)


def non_inferior(treatment: str, control: str, task: str, metric: str, margin: float, **parameters: Any) -> Within:
    """treatment is not worse than control by more than `margin` (higher is better)."""
    return better(treatment, control, task, metric, by=-margin, **parameters)


def solved_share(
    method: str, task: str, metric: str, low: float, share: float, slack: float = 0.0, **parameters: Any
) -> Within:
    """At least `share` of the seeds reach metric >= low."""
    return Within(Share(Cell(method, task, metric, given(**parameters)), low=low), low=share, slack=slack)


def cells(rule: Any) -> Iterator[Cell]:
    """Every Cell in a rule, in order of appearance, repeats included."""
    if isinstance(rule, Cell):
        yield rule
    elif isinstance(rule, tuple):
        for item in rule:
            yield from cells(item)
    elif is_dataclass(rule):
        for f in fields(rule):
            yield from cells(getattr(rule, f.name))


# Mistakes -------------------------------------------------------------------------------------------------------------

HOW = {
    Over: ("mean", "min", "max", "median"),
    Seeds: ("mean", "median", "iqm"),
    Tasks: ("signed-rank", "mean"),
}
NUMBERS = (Cell, Diff, Ratio, Slope, Over, Rank)


def mistakes(rule: Any) -> list[str]:
    """What makes a rule one that cannot be judged, or that nothing could refute; each with its mend."""
    match rule:
        case Within(node, low, high, slack):
            wrong = [] if isinstance(slack, int | float) and slack >= 0 else [f"slack={slack!r}; give 0 or more"]
            return limits(rule, low, high) + wrong + in_node(node, (*NUMBERS, Seeds, Share, Corr, Tasks))
        case Every(node, low, high, at_least):
            wrong = [] if whole_number(at_least, 1) else [f"at_least={at_least!r}; give 1 or more"]
            return limits(rule, low, high) + wrong + in_node(node, NUMBERS)
        case All(rules):
            return parts("All", rules)
        case AtLeast(k, rules):
            many = len(rules) if isinstance(rules, tuple) else 1
            wrong = [] if whole_number(k, 1, many) else [f"AtLeast(k={k!r}) of {many} rules; give 1 to {many}"]
            return wrong + parts("AtLeast", rules)
    return [f"{short(rule)} decides nothing; write Within, Every, All or AtLeast"]


def parts(name: str, rules: Any) -> list[str]:
    if not isinstance(rules, tuple) or not rules:
        return [f"{name}(rules={short(rules)}); give a tuple of at least one rule"]
    return [wrong for rule in rules for wrong in mistakes(rule)]


def in_node(node: Any, allowed: tuple[type, ...]) -> list[str]:
    """Of a number and all below it."""
    if not isinstance(node, allowed):
        return [f"{short(node)} is no number here; write one of {', '.join(kind.__name__ for kind in allowed)}"]
    match node:
        case Cell():
            return in_cell(node)
        case Diff(a, b) | Ratio(a, b) | Corr(a, b):
            return in_node(a, NUMBERS) + in_node(b, NUMBERS)
        case Slope(points, x, y):
            return in_slope(points, x, y)
        case Over(nodes, how):
            named = isinstance(nodes, tuple) and bool(nodes)
            wrong = [] if named else [f"Over(nodes={short(nodes)}); give a tuple of at least one number"]
            return wrong + in_how(Over, how) + [w for n in (nodes if named else ()) for w in in_node(n, NUMBERS)]
        case Rank(of, among, better):
            among = among if isinstance(among, tuple) else ()
            wrong = [] if of in among and len(among) > 1 else ["Rank: `of` has to be one of `among`, and these two at least"]
            wrong += [] if better in ("higher", "lower") else [f"Rank(better={better!r}); write 'higher' or 'lower'"]
            return wrong + [w for cell in among for w in in_node(cell, (Cell,))]
        case Seeds(of, how):
            return in_how(Seeds, how) + in_node(of, NUMBERS)
        case Tasks(nodes, how):
            return in_how(Tasks, how) + in_tasks(nodes)
        case Share(of, low, high):
            return limits(node, low, high) + in_node(of, NUMBERS)
    raise TypeError(type(node))


def in_cell(cell: Cell) -> list[str]:
    names = {name: getattr(cell, name) for name in ("method", "task", "metric", "part", "at")}
    wrong = [
        f"Cell({name}={short(text)}); give a name" for name, text in names.items() if not isinstance(text, str) or not text
    ]
    pairs = isinstance(cell.given, tuple) and all(
        isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], str) and isinstance(p[1], str | int | float | None)
        for p in cell.given
    )
    return wrong if pairs else [*wrong, f"Cell(given={short(cell.given)}); write harness.given(net__arch='mlp')"]


def in_tasks(nodes: Any) -> list[str]:
    """No task may count twice: each node has its own."""
    if not isinstance(nodes, tuple) or len(nodes) < FEWEST_TASKS:
        many = f"{len(nodes)} numbers" if isinstance(nodes, tuple) else short(nodes)
        return [f"Tasks of {many} decides nothing; give a tuple of {FEWEST_TASKS} at least, one a task"]
    if wrong := [w for node in nodes for w in in_node(node, NUMBERS)]:
        return wrong
    named = [
        frozenset((cell.task, *(i for i in cell.given if i[0].startswith("task."))) for cell in cells(node)) for node in nodes
    ]
    twice = next((nodes[i] for i, tasks in enumerate(named) if any(tasks & before for before in named[:i])), None)
    return [] if twice is None else [f"Tasks: two numbers are of one task, and both would count: {short(twice)}"]


def in_slope(points: Any, x: Any, y: Any) -> list[str]:
    wrong = [
        f"Slope({name}={axis!r}); write 'linear' or 'log'"
        for name, axis in (("x", x), ("y", y))
        if axis not in ("linear", "log")
    ]
    if not isinstance(points, tuple) or not all(isinstance(p, tuple) and len(p) == 2 for p in points):
        return [*wrong, f"Slope(points={short(points)}); give a tuple of (x, number)"]
    at = [where for where, _ in points]
    if not all(isinstance(where, int | float) and isfinite(where) for where in at) or len(set(at)) < 2:
        wrong.append(f"Slope over {short(at)}; give two different x at least, finite")
    elif x == "log" and min(at) <= 0:
        wrong.append(f"Slope over the logarithm of {min(at):g}; give x above 0, or x='linear'")
    return wrong + [w for _, node in points for w in in_node(node, NUMBERS)]


def in_how(kind: type, how: Any) -> list[str]:
    return [] if how in HOW[kind] else [f"{kind.__name__}(how={how!r}); write one of {', '.join(HOW[kind])}"]


def limits(rule: Within | Every | Share, low: Any, high: Any) -> list[str]:
    """Of a range: Within is open, and needs room between its limits."""
    name = type(rule).__name__
    if not all(isinstance(limit, int | float) and not isnan(limit) for limit in (low, high)):
        return [f"{name}(low={low!r}, high={high!r}); give numbers"]
    if low > high or (low == high and isinstance(rule, Within)):
        return [f"{name}(low={low:g}, high={high:g}) has no room; give low < high"]
    return [] if isfinite(low) or isfinite(high) else [f"{name} has no limit, so that nothing refutes it; give low or high"]


def whole_number(value: Any, least: int, most: float = inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
