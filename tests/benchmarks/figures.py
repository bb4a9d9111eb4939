"""What a benchmark finds: readings of one quantity, its goal, and the same quantity of a peer. Nothing is measured here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Readings:
    """One quantity read several times. unit: of the values as they stand ("s", "ms", "ratio")."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Figure:
    """A row of the page. goal: at most this, None where there is none.

    center: instead of the readings' median, where the ratio of two medians tells more than the median of ratios.
    peers: the same quantity of others, read in the same run. missing: peers that could not be read, with the reason.
    """

    what: str
    readings: Readings
    goal: float | None = None
    center: float | None = None
    peers: tuple[Readings, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        return self.readings.median if self.center is None else self.center

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.value <= self.goal


def interleave(subjects: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Call all subjects in each round, forwards and backwards in turn (A B B A ...), so that a drift hits each alike."""
    results: dict[str, list[T]] = {name: [] for name in subjects}
    for number in range(rounds):
        order: Iterable[str] = subjects if number % 2 == 0 else reversed(list(subjects))
        for name in order:
            results[name].append(subjects[name]())
    return results
