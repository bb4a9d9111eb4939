"""Tables of the UCI collection and of PMLB that a rule defines: all rows of a finite domain, or rows drawn by the rule.

NumPy only. `make_table` gives a table's rows and labels; a drawn one is another for each seed. Features are the codes of the
published tables, in their order, as numbers; labels are 0 .. classes - 1.
Sources: Thrun et al. 1991 (monks), Siegler 1976 (balance-scale), Aha 1991 (tic-tac-toe), Breiman et al. 1984 (led, waveform),
Breiman 1996 (twonorm, threenorm, ringnorm); the Boolean ones are PMLB's. Where PMLB has the table, a test compares the rule
with every row of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness_papers.selu.tabular import SIZES

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


Make = Callable[[np.random.Generator, int], tuple[Array, Labels]]  # generator, rows -> features, labels


def make_table(name: str, rng: np.random.Generator) -> tuple[Array, Labels]:
    """All rows of a finite domain in a fixed order, or as many as the published table has, drawn. Without label noise."""
    x, y = TABLES[name](rng, SIZES[name].rows)
    return np.asarray(x, np.float64), np.asarray(y, np.int64)


# Finite domains ---------------------------------------------------------------------------------------------------------


def enumerated(domain: Callable[[], Iterable[tuple[int, ...]]], rule: Callable[[Array], Any]) -> Make:
    """Every row of the domain, labelled by the rule on the (rows, features) array."""

    def make(rng: np.random.Generator, rows: int) -> tuple[Array, Labels]:
        x = np.array(list(domain()), dtype=np.float64)
        return x, rule(x).astype(np.int64)

    return make


def codes(*sizes: int, first: int = 0) -> Callable[[], Iterable[tuple[int, ...]]]:
    """All combinations of codes first .. first + size - 1, one size a feature."""
    return lambda: itertools.product(*(range(first, first + size) for size in sizes))


WIN_LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]
EMPTY, NOUGHT, CROSS = 0, 1, 2
MONK = codes(3, 3, 2, 3, 4, 2, first=1)


def has_line(board: tuple[int, ...], player: int) -> bool:
    return any(all(board[cell] == player for cell in line) for line in WIN_LINES)


def finished_boards() -> list[tuple[int, ...]]:
    """Every board with which a game of tic-tac-toe can end, crosses first; sorted."""
    found, seen = set(), set()
    open_ = [(EMPTY,) * 9]
    while open_:
        board = open_.pop()
        if has_line(board, CROSS) or has_line(board, NOUGHT) or EMPTY not in board:
            found.add(board)
            continue
        mover = CROSS if board.count(CROSS) == board.count(NOUGHT) else NOUGHT
        after = {(*board[:cell], mover, *board[cell + 1 :]) for cell in range(9) if board[cell] == EMPTY} - seen
        seen |= after
        open_ += after
    return sorted(found)


def crosses_win(x: Array) -> NDArray[np.bool_]:
    return np.array([has_line(tuple(row), CROSS) for row in x.astype(int)])


def heavier_side(x: Array) -> NDArray[np.float64]:
    """Weight times distance on each side: 0 in balance, 1 to the left, 2 to the right."""
    return np.sign(x[:, 0] * x[:, 1] - x[:, 2] * x[:, 3]) % 3


def monk_3(x: Array) -> NDArray[np.bool_]:
    return ((x[:, 4] == 3) & (x[:, 3] == 1)) | ((x[:, 4] != 4) & (x[:, 1] != 3))


def three_in_a_row(x: Array) -> NDArray[np.bool_]:
    return np.stack([x[:, i : i + 3].all(axis=1) for i in range(x.shape[1] - 2)]).any(axis=0)


def any_triple(x: Array) -> NDArray[np.bool_]:
    """(1 and 2 and 3) or (4 and 5 and 6) or (7 and 8 and 9)."""
    return x.reshape(len(x), -1, 3).all(axis=2).any(axis=1)


# Distributions ------------------------------------------------------------------------------------------------------------


DIMENSIONS = 20  # of the norms
SHIFT = 2 / math.sqrt(DIMENSIONS)


def draw_twonorm(rng: np.random.Generator, rows: int) -> tuple[Array, Labels]:
    """Two normals of unit variance around (a, ..., a) and (-a, ..., -a), a = 2 / sqrt(20)."""
    y = rng.integers(2, size=rows)
    return rng.standard_normal((rows, DIMENSIONS)) + SHIFT * (1 - 2 * y[:, None]), y


def draw_threenorm(rng: np.random.Generator, rows: int) -> tuple[Array, Labels]:
    """Class 0 from either normal of twonorm, class 1 from one around (a, -a, a, ...)."""
    y = rng.integers(2, size=rows)
    side = 1 - 2 * rng.integers(2, size=(rows, 1))
    centre = np.where(y[:, None] == 1, SHIFT * (-1.0) ** np.arange(DIMENSIONS), SHIFT * side)
    return rng.standard_normal((rows, DIMENSIONS)) + centre, y


def draw_ringnorm(rng: np.random.Generator, rows: int) -> tuple[Array, Labels]:
    """A normal of variance 4 around 0 against one of variance 1 around (a, ..., a), a = 1 / sqrt(20)."""
    y = rng.integers(2, size=rows)
    noise = rng.standard_normal((rows, DIMENSIONS))
    return np.where(y[:, None] == 0, 2 * noise, noise + SHIFT / 2), y


def draw_waveform(extra: int) -> Make:
    """A random mixture of two of three triangular waves at 21 points, with noise; `extra` features of noise alone."""
    points = np.arange(1, 22)
    waves = np.stack([np.maximum(6 - np.abs(points - peak), 0) for peak in (11, 15, 7)])  # Breiman's h1, h2, h3

    def make(rng: np.random.Generator, rows: int) -> tuple[Array, Labels]:
        y = rng.integers(3, size=rows)
        one, other = waves[np.array([0, 0, 1])[y]], waves[np.array([1, 2, 2])[y]]
        u = rng.random((rows, 1))
        x = u * one + (1 - u) * other + rng.standard_normal((rows, 21))
        return np.concatenate([x, rng.standard_normal((rows, extra))], axis=1), y

    return make


# The segments of a digital display: top, upper left, upper right, middle, lower left, lower right, bottom.
SEGMENTS = np.array([[int(bit) for bit in digit] for digit in (
    "1110111", "0010010", "1011101", "1011011", "0111010", "1101011", "1101111", "1010010", "1111111", "1111011",
)])  # fmt: skip


def draw_led(extra: int) -> Make:
    """A digit's seven segments, each wrong with a chance of one in ten; `extra` random bits."""

    def make(rng: np.random.Generator, rows: int) -> tuple[Array, Labels]:
        y = rng.integers(10, size=rows)
        x = SEGMENTS[y] ^ (rng.random((rows, 7)) < 0.1)
        return np.concatenate([x, rng.integers(2, size=(rows, extra))], axis=1), y

    return make


LABEL_NOISE = {"monks-3": 0.05}  # share of labels that are turned over where a method can see them, not in the test part

TABLES: dict[str, Make] = {
    "tic-tac-toe": enumerated(finished_boards, crosses_win),
    "balance-scale": enumerated(codes(5, 5, 5, 5, first=1), heavier_side),
    "monks-1": enumerated(MONK, lambda x: (x[:, 0] == x[:, 1]) | (x[:, 4] == 1)),
    "monks-2": enumerated(MONK, lambda x: (x == 1).sum(axis=1) == 2),
    "monks-3": enumerated(MONK, monk_3),
    "three-of-9": enumerated(codes(*[2] * 9), three_in_a_row),
    "xd6": enumerated(codes(*[2] * 9), any_triple),
    "mofn-3-7-10": enumerated(codes(*[2] * 10), lambda x: x[:, 2:9].sum(axis=1) >= 3),
    "parity5+5": enumerated(codes(*[2] * 10), lambda x: x[:, [1, 2, 3, 5, 7]].sum(axis=1) % 2),
    "twonorm": draw_twonorm,
    "threenorm": draw_threenorm,
    "ringnorm": draw_ringnorm,
    "waveform": draw_waveform(0),
    "waveform-noise": draw_waveform(19),
    "led7": draw_led(0),
    "led24": draw_led(17),
}
