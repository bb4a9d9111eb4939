"""The calls that are timed: they take turns on several sets of operands, and the operands change while the timer runs.

`Rotation.thunk` is what a timer calls. At random calls one element of each set gets another value, in place and past
autograd's version counters: an implementation that returns what it kept is wrong from there on. The results of the last
call and of one drawn at random are kept with what that element was, and `results` gives them, operands set back to suit.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import Any

import torch
from torch import Tensor

FIRST_GAP = 3  # calls before the first change, at most twice that
GROWTH = 1.3  # of the gap between changes: some 30 of them in 10,000 calls
POOL = 64  # values that a changed element may take, from the operands themselves


@dataclass(frozen=True)
class Kept:
    """What a call gave: number of the set, value of its changing element then, result."""

    number: int
    value: float | None
    result: Any


class Rotation:
    """Calls act(given[0]), act(given[1]), ... in turn.

    changing: for each of given the tensor of which an element changes; without elements, or not floating, it stays.
    """

    def __init__(
        self, given: Sequence[Any], changing: Sequence[Tensor], act: Callable[[Any], Any], generator: torch.Generator
    ) -> None:
        self._given = list(given)
        self._act = act
        self._random = random.Random(int(torch.randint(2**62, (), generator=generator)))
        self._cells = [cell_of(t, self._random) for t in changing]
        self._pool = pool_of(changing, self._random)
        self._values: list[float | None] = [None if cell is None else float(cell) for cell in self._cells]
        self._last: tuple[Any, Any] | None = None  # what the last call was given and gave
        self._drawn: Kept | None = None
        self._boundaries = 0
        self._advance = chain.from_iterable(self._stretches()).__next__

    def thunk(self) -> Callable[[], None]:
        """A call costs what act costs and a turn of the iterator. The last result is dropped before the next is made."""
        advance, act, rotation = self._advance, self._act, self

        def call() -> None:
            given = advance()
            rotation._last = None
            rotation._last = (given, act(given))

        return call

    def results(self) -> Iterator[tuple[str, int, Any]]:
        """("the last timed call", set, result), and of a drawn one; meanwhile the operands are as they were for that call.

        Nothing can be timed afterwards: act is let go, for with a graph that it keeps it can be larger than all else.
        """
        del self._act
        named = [("the last timed call", self._keep()), ("a timed call drawn at random", self._drawn)]
        for name, kept in named:
            if kept is not None:
                self._set(kept.number, kept.value)
                yield name, kept.number, kept.result

    def _stretches(self) -> Iterator[Iterable[Any]]:
        """Turns without a change, ever longer. What stands between them runs at the start of a call."""
        turns = cycle(self._given)
        gap = float(FIRST_GAP)
        while True:
            yield islice(turns, self._random.randint(int(gap), 2 * int(gap)))
            gap *= GROWTH
            if capturing():
                continue  # a captured graph would repeat the change at each replay
            self._boundaries += 1
            if self._random.random() < 1 / self._boundaries:
                self._drawn = self._keep()
            for number in range(len(self._cells)):
                self._set(number, self._other_value(number))

    def _keep(self) -> Kept | None:
        if self._last is None:
            return None
        given, result = self._last
        number = next(i for i, each in enumerate(self._given) if each is given)
        return Kept(number, self._values[number], result)

    def _other_value(self, number: int) -> float | None:
        """From the other end of the pool: the result should change visibly."""
        now, middle = self._values[number], len(self._pool) // 2
        if now is None or not self._pool:
            return now
        half = self._pool[middle:] if now < self._pool[middle] else self._pool[:middle] or self._pool
        return self._random.choice(half)

    def _set(self, number: int, value: float | None) -> None:
        cell = self._cells[number]
        if cell is not None and value is not None:
            cell.fill_(value)
            self._values[number] = value


def cell_of(tensor: Tensor, draw: random.Random) -> Tensor | None:
    """One element as a view without axes. `.data`: what is written there does not move the tensor's version counter."""
    if not tensor.numel() or not tensor.is_floating_point():
        return None
    return tensor.data[tuple(draw.randrange(size) for size in tensor.shape)]


def pool_of(tensors: Sequence[Tensor], draw: random.Random) -> list[float]:
    """Values of the tensors, sorted: changed operands stay in the kernel's domain."""
    cells = [cell_of(t, draw) for t in tensors for _ in range(POOL // len(tensors))]
    return sorted({float(c) for c in cells if c is not None})


def capturing() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
