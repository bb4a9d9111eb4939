"""The formulas that nets are fitted to, on NumPy arrays; special functions are SciPy's. Imports no torch.

Each maps the columns of an array of its variables, in the units of its `domain`, to one value a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Formula:
    """value(a, b, ...), a column each; domain: (low, high) of each variable, all values inside are drawn alike."""

    value: Callable[..., Array]
    domain: tuple[tuple[float, float], ...]

    @property
    def inputs(self) -> int:
        return len(self.domain)


UNIT = (-1.0, 1.0)
FORMULAS: dict[str, Formula] = {
    # Composed: an outer function of sums of inner ones, what a KAN's graph can hold. First and last are arXiv:2404.19756's.
    "exp-sine": Formula(lambda a, b: np.exp(np.sin(np.pi * a) + b**2), (UNIT,) * 2),
    "product": Formula(lambda a, b: a * b, (UNIT,) * 2),
    "sine-of-squares": Formula(lambda a, b: np.sin(np.pi * (a**2 + b**2)), (UNIT,) * 2),
    "four-squares": Formula(
        lambda a, b, c, d: np.exp((np.sin(np.pi * (a**2 + b**2)) + np.sin(np.pi * (c**2 + d**2))) / 2), (UNIT,) * 4
    ),
    # Oscillating, of one variable.
    "oscillation": Formula(lambda a: np.sin(20 * a), (UNIT,)),
    "bessel": Formula(lambda a: special.j0(20 * a), (UNIT,)),
    # Special functions of two variables; the incomplete elliptic integral on the range of the fairer comparison's code.
    "ellipkinc": Formula(special.ellipkinc, ((0.0, 1.0), (0.0, 1.0))),
    "jv": Formula(special.jv, ((0.0, 2.0), (0.0, 10.0))),
    # Of Feynman's lectures: the Lorentz force q (E + B v sin theta), I.12.11, and Einstein's sum of velocities, I.16.6, c = 1.
    "lorentz": Formula(lambda q, e, b, v, theta: q * (e + b * v * np.sin(theta)), ((1.0, 5.0),) * 4 + ((0.0, 2 * np.pi),)),
    "velocities": Formula(lambda u, v: (u + v) / (1 + u * v), ((-0.9, 0.9),) * 2),
}


def draw(name: str, rng: np.random.Generator, items: int) -> tuple[Array, Array]:
    """x uniform in [-1, 1]^d (items, d), which stands for the formula's domain, and its values (items,)."""
    formula = FORMULAS[name]
    x = rng.uniform(-1.0, 1.0, (items, formula.inputs))
    low, high = np.array(formula.domain).T
    return x, np.asarray(formula.value(*(low + (x + 1) / 2 * (high - low)).T), dtype=np.float64)
