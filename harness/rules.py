"""The words in which a claim's rule is written: frozen, printable, hashable data. Judging them is `harness.claims`' work.

Numbers per seed: Cell, Diff, Ratio, Slope, Over, Rank. Numbers over seeds: Seeds, Share, Corr. Decisions, three-valued:
Within, Every, All, AtLeast. `better`, `non_inferior` and `solved_share` are shorthands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from math import inf
from typing import Any, Literal

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
class Within:
    """Supported: the interval lies inside (low, high), not touching; refuted: beyond by more than slack; else inconclusive."""

    node: Number | Seeds | Share | Corr
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
