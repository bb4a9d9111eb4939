"""Tuning: quasi-random points of a suite's space, and the best of them by their validation scores. Pure; no torch.

Points are of a Sobol sequence, moved by a digital shift drawn from root seed, seed and the name of the dimension: all methods
meet the same values of the dimensions that they share, and the luck of the points is not the same in all seeds.
Source: Joe and Kuo 2008, SIAM J. Sci. Comput. 30(5), direction numbers new-joe-kuo-6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.identity import stream_seed
from harness.suite import Dimension, Tuning

BITS = 32
# Of dimensions 2, 3, ...: the degree s and the inner coefficients a of a primitive polynomial, the first direction numbers m.
JOE_KUO = (
    (1, 0, (1,)), (2, 1, (1, 3)), (3, 1, (1, 3, 1)), (3, 2, (1, 1, 1)), (4, 1, (1, 1, 3, 3)), (4, 4, (1, 3, 5, 13)),
    (5, 2, (1, 1, 5, 5, 17)), (5, 4, (1, 1, 5, 5, 5)), (5, 7, (1, 1, 7, 11, 19)), (5, 11, (1, 1, 5, 1, 1)),
    (5, 13, (1, 1, 1, 3, 11)), (5, 14, (1, 3, 5, 5, 31)), (6, 1, (1, 3, 3, 9, 7, 49)), (6, 13, (1, 1, 1, 15, 21, 21)),
    (6, 16, (1, 3, 1, 13, 27, 49)),
)  # fmt: skip


@dataclass(frozen=True)
class Tried:
    """One tuning trial that has ended. score: on the validation part; None where it failed. wall_s: what it took."""

    point: int
    values: Mapping[str, Any]
    score: float | None
    wall_s: float | None = None


def points(tuning: Tuning, names: Sequence[str], root_seed: int, seed: int) -> list[dict[str, Any]]:
    """`tuning.trials` points over the named dimensions of the space, values of each by name."""
    order = sorted(tuning.space, key=lambda n: (not n.startswith("train."), n))  # what a method has alone moves no shared one
    shifts = {name: stream_seed(root_seed, seed, "tuning", name) >> (63 - BITS) for name in names}
    rows = sobol(tuning.trials, len(order))
    return [{n: value_at(tuning.space[n], ((row[order.index(n)] ^ shifts[n]) + 0.5) / 2**BITS) for n in names} for row in rows]


def value_at(dimension: Dimension, u: float) -> Any:
    """The value at u in (0, 1). Rounded to six digits: the last ones of a power differ between C libraries."""
    if dimension.kind == "values":
        return dimension.values[min(int(u * len(dimension.values)), len(dimension.values) - 1)]
    low, high = dimension.values
    value = low * math.exp(u * math.log(high / low)) if dimension.kind == "log" else low + u * (high - low)
    return min(max(float(f"{value:.6g}"), low), high)


def best(tried: Sequence[Tried], better: Literal["higher", "lower"]) -> Tried:
    """The best score; a trial that failed counts as worst, and of equals the first counts."""
    sign = -1.0 if better == "higher" else 1.0
    return min(tried, key=lambda t: (t.score is None, sign * (t.score or 0.0), t.point))


def sobol(count: int, dimensions: int) -> list[tuple[int, ...]]:
    """The first points of the Sobol sequence in Gray-code order, as BITS-bit numerators; the first is 0.

    Raises ValueError beyond the 16 dimensions whose direction numbers are here.
    """
    if dimensions > len(JOE_KUO) + 1:
        raise ValueError(f"sobol: {dimensions} dimensions; there are direction numbers for {len(JOE_KUO) + 1}")
    directions = [direction_numbers(d) for d in range(dimensions)]
    point, found = [0] * dimensions, []
    for index in range(count):
        found.append(tuple(point))
        lowest_zero = (~index & (index + 1)).bit_length() - 1
        point = [x ^ v[lowest_zero] for x, v in zip(point, directions, strict=True)]
    return found


def direction_numbers(dimension: int) -> list[int]:
    """BITS numbers v_i = m_i / 2^i, as numerators over 2^BITS; dimension 0 is van der Corput's."""
    if dimension == 0:
        return [1 << (BITS - 1 - i) for i in range(BITS)]
    s, a, m = JOE_KUO[dimension - 1]
    v = [m[i] << (BITS - 1 - i) for i in range(s)]
    for i in range(s, BITS):
        new = v[i - s] ^ (v[i - s] >> s)
        for k in range(1, s):
            if (a >> (s - 1 - k)) & 1:
                new ^= v[i - k]
        v.append(new)
    return v
