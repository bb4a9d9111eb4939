"""How often each instrument calls what is not there, and misses what is: `python -m harness.regress.simulation` prints it.

Whole suites of series are drawn, night by night, and judged by the functions that judge real ones. Nothing is read or timed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.regress.history import find_step
from harness.regress.interleaved import Rounds, verdict
from harness.regress.judging import PRACTICES
from harness.regress.nightly import LEAST_NIGHTS, LEVEL, WINDOW_NIGHTS, night_p

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Reals = NDArray[np.float64]
    Generator = np.random.Generator

Noise = Literal["normal", "outliers", "drifting", "two levels"]
NOISES: tuple[Noise, ...] = ("normal", "outliers", "drifting", "two levels")
SERIES = 60
MONTH = 30
SLOWDOWNS = (0.02, 0.05, 0.10)
LEVELS = (0.01, 0.03)
FLOOR = PRACTICES["time"].noise_floor
EFFECT = PRACTICES["time"].effect


@dataclass(frozen=True)
class Size:
    """How much is drawn: quiet months of a suite for the rule of the night, series for the history (each night of a month
    is judged), steps for the detections, comparisons of two commits."""

    months: int = 40
    history_series: int = 60
    steps: int = 200
    comparisons: int = 300


QUICK = Size()
LONG = Size(months=200, history_series=120, steps=400, comparisons=1000)


@dataclass(frozen=True)
class Rate:
    """slowdown 0: false alarms, expected in 30 quiet nights of a whole suite (of interleaved: a comparison of equal commits).

    Otherwise the share of slowdowns that are found; `after`: nights of the slow code that the instrument had seen by then.
    """

    instrument: str
    shape: Noise
    noise: float
    slowdown: float
    after: int
    value: float


def nights(shape: Noise, noise: float, size: tuple[int, ...], rng: Generator) -> Reals:
    """Relative times of quiet nights, along the last axis. noise: their standard deviation, but for outliers."""
    import numpy as np

    drawn = rng.standard_normal(size)
    if shape == "drifting":  # first-order autoregressive, 0.7
        for night in range(1, size[-1]):
            drawn[..., night] = 0.7 * drawn[..., night - 1] + np.sqrt(1 - 0.49) * drawn[..., night]
    found = 1 + noise * drawn
    if shape == "outliers":  # 3 % of all nights, a fifth slower on average
        found += (rng.random(size) < 0.03) * rng.exponential(0.2, size)
    if shape == "two levels":  # 30 % of all nights 4 % slower: where the code happens to lie
        found += (rng.random(size) < 0.3) * 0.04
    return np.maximum(found, 0.1)


# The rule of the night ------------------------------------------------------------------------------------------------


def called(previous: Reals, last: Reals, series: int = SERIES) -> NDArray[np.bool_]:
    """Whether Holm calls a series of a suite at LEVEL. previous: (..., series, nights), last: (..., series)."""
    import numpy as np

    p = night_p(previous, last, FLOOR)
    ranks = p.argsort(axis=-1).argsort(axis=-1)
    adjusted = np.minimum(1.0, p * (series - ranks))
    # Holm's adjusted p never falls with the rank: the running maximum in the order of the ranks.
    order = p.argsort(axis=-1)
    adjusted = np.maximum.accumulate(np.take_along_axis(adjusted, order, axis=-1), axis=-1)
    adjusted = np.take_along_axis(adjusted, ranks, axis=-1)
    centre = np.median(previous, axis=-1)
    found: NDArray[np.bool_] = (adjusted <= LEVEL) & (last / centre - 1 >= EFFECT)
    return found


def night_false_alarms(shape: Noise, noise: float, months: int, rng: Generator, before: int = LEAST_NIGHTS) -> float:
    """Nights with an alarm in 30 quiet nights of a whole suite, on average, that begin after `before` nights."""
    alarms = 0
    for _ in range(months):
        drawn = nights(shape, noise, (SERIES, before + MONTH), rng)
        for night in range(before, before + MONTH):
            alarms += bool(called(drawn[:, max(0, night - WINDOW_NIGHTS) : night], drawn[:, night]).any())
    return alarms / months


def night_detections(
    shape: Noise, noise: float, slowdown: float, steps: int, rng: Generator, before: int = WINDOW_NIGHTS
) -> float:
    """The share of steps in one series of a suite that are called in their first night."""
    drawn = nights(shape, noise, (steps, SERIES, before + 1), rng)
    drawn[:, 0, -1] *= 1 + slowdown
    return float(called(drawn[..., :-1], drawn[..., -1])[:, 0].mean())


# The history ----------------------------------------------------------------------------------------------------------


def history_false_alarms(shape: Noise, noise: float, series: int, rng: Generator, before: int = MONTH) -> float:
    """Series that are called in one of 30 quiet nights, of a whole suite, on average."""
    drawn = nights(shape, noise, (series, before + MONTH), rng)
    alarms = sum(
        any(find_step(row[:night]) is not None for night in range(before + 1, before + MONTH + 1)) for row in drawn.tolist()
    )
    return alarms / series * SERIES


def history_detections(
    shape: Noise, noise: float, slowdown: float, after: int, steps: int, rng: Generator, before: int = WINDOW_NIGHTS
) -> float:
    """The share of steps that are found `after` nights later, within three nights of where they are."""
    drawn = nights(shape, noise, (steps, before + after), rng)
    drawn[:, before:] *= 1 + slowdown
    found = (find_step(row) for row in drawn.tolist())
    return sum(step is not None and abs(step.at - before) <= 3 for step in found) / steps


# Interleaved ----------------------------------------------------------------------------------------------------------


def interleaved_calls(shape: Noise, noise: float, slowdown: float, comparisons: int, rng: Generator) -> float:
    """The share of comparisons that are called slower. noise: of one block; each process has a level of its own besides, which
    varies by a third of that."""
    import numpy as np

    rounds = Rounds()
    blocks = nights(shape, noise, (comparisons, rounds.pairs, rounds.rounds * 4), rng)
    a, b, c, d = np.moveaxis(blocks.reshape(comparisons, rounds.pairs, rounds.rounds, 4), -1, 0)
    levels = 1 + noise / 3 * rng.standard_normal((2, comparisons, rounds.pairs, 1))
    ratios = np.log((b + c) * levels[1] * (1 + slowdown) / (a + d) / levels[0])
    return sum(verdict(each)[0] == "slower" for each in ratios.tolist()) / comparisons


# All of it ------------------------------------------------------------------------------------------------------------


def simulate(
    size: Size = QUICK, seed: int = 0, shapes: Iterable[Noise] = ("normal",), levels: Sequence[float] = LEVELS
) -> list[Rate]:
    """Every instrument at each noise, with each slowdown and with none."""
    import numpy as np

    found = []
    for shape in shapes:
        for noise in levels:
            rng = np.random.default_rng((seed, NOISES.index(shape), round(1000 * noise)))
            found += simulate_one(shape, noise, size, rng)
    return found


def simulate_one(shape: Noise, noise: float, size: Size, rng: Generator) -> list[Rate]:
    rates = [
        Rate("night", shape, noise, 0.0, 0, night_false_alarms(shape, noise, size.months, rng)),
        Rate("history", shape, noise, 0.0, 0, history_false_alarms(shape, noise, size.history_series, rng)),
        Rate("interleaved", shape, noise, 0.0, 0, interleaved_calls(shape, noise, 0.0, size.comparisons, rng)),
    ]
    for slowdown in SLOWDOWNS:
        rates.append(Rate("night", shape, noise, slowdown, 1, night_detections(shape, noise, slowdown, size.steps, rng)))
        for after in (3, 7):
            share = history_detections(shape, noise, slowdown, after, size.steps, rng)
            rates.append(Rate("history", shape, noise, slowdown, after, share))
        share = interleaved_calls(shape, noise, slowdown, size.comparisons, rng)
        rates.append(Rate("interleaved", shape, noise, slowdown, 0, share))
    return rates


def to_markdown(rates: Sequence[Rate]) -> str:
    """The rates as a table: one row an instrument and noise."""
    head = "| instrument | noise | false alarms | " + " | ".join(f"+{s:.0%} found" for s in SLOWDOWNS) + " |"
    lines = [head, "|---|---|---|" + "---|" * len(SLOWDOWNS)]
    names = dict.fromkeys((r.shape, r.noise, r.instrument, r.after) for r in rates if r.slowdown)
    for shape, noise, instrument, after in names:
        of_row = [r for r in rates if (r.shape, r.noise, r.instrument) == (shape, noise, instrument)]
        false = next(r.value for r in of_row if not r.slowdown)
        per = "a comparison" if instrument == "interleaved" else "a month"
        seen = {0: "", 1: ", 1st night"}.get(after, f", night {after}")
        found = [next(r.value for r in of_row if (r.slowdown, r.after) == (s, after)) for s in SLOWDOWNS]
        cells = [f"{instrument}{seen}", f"{shape} {noise:.0%}", f"{false:.3g} {per}", *(f"{share:.0%}" for share in found)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    size = LONG if "--long" in sys.argv[1:] else QUICK
    print(to_markdown(simulate(size, shapes=NOISES)))


if __name__ == "__main__":
    main()
