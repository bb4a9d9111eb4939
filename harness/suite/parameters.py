"""Parameters of an entry: `grid` multiplies, `zip` aligns, defaults are filled in; and the patterns that leave trials out."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from harness.specs import Params
from harness.suite.text import Loc


@dataclass(frozen=True)
class Combination:
    """One set of parameters as written. places: where below the entry each value stands."""

    values: Mapping[str, Any]
    places: Mapping[str, Loc]


def count_combinations(grid: Mapping[str, Sequence[Any]], aligned: Mapping[str, Sequence[Any]]) -> int:
    """How many sets of parameters an entry stands for, without making them."""
    return math.prod(len(values) for values in grid.values()) * min((len(values) for values in aligned.values()), default=1)


def combine(
    params: Mapping[str, Any], grid: Mapping[str, Sequence[Any]], aligned: Mapping[str, Sequence[Any]]
) -> Iterator[Combination]:
    """Every set of parameters: the grid's product, times the rows of zip; the last key of the grid turns fastest."""
    fixed: dict[str, Loc] = {name: ("params", name) for name in params}
    rows = range(min((len(values) for values in aligned.values()), default=1))
    for row in rows:
        for at in itertools.product(*(range(len(values)) for values in grid.values())):
            picks = dict(zip(grid, at, strict=True))
            values = {n: v[row] for n, v in aligned.items()} | {n: v[picks[n]] for n, v in grid.items()}
            places = fixed | {n: ("zip", n, row) for n in aligned} | {n: ("grid", n, picks[n]) for n in grid}
            yield Combination({**params, **values}, places)


def resolve_params(model: type[Params], values: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters with their defaults, as JSON values of the declared types: what identities are made of.

    An int given for a float becomes one; "10" is no number. Raises pydantic.ValidationError.
    """
    return model.model_validate_json(json.dumps(dict(values)), strict=True).model_dump(mode="json")


def matches(value: Any, pattern: Any) -> bool:
    """Whether a trial's value is what an `exclude` means: text as a glob pattern, anything else by equality and type."""
    if isinstance(pattern, str):
        return fnmatchcase(value if isinstance(value, str) else json.dumps(value), pattern)
    return isinstance(pattern, bool) == isinstance(value, bool) and bool(pattern == value)
