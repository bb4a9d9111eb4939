"""A barrier method for a batch of semidefinite programs: minimise c x over P(x) >= 0, P affine. NumPy only.

F(x) = -logdet P(x) has the parameter nu, the size of P. All iterates are strictly feasible, so each is a certificate.

Lower bounds. Let d = -H^-1 (tau c + g) be Newton's step for tau c x + F at x (g, H: gradient and Hessian of F), R = P^-1
and dP the linear part of P along d. Newton's equation says that X = (R - R dP R) / tau satisfies the equations of the dual
program; X >= 0 iff P - dP >= 0, that is iff the reflected point x - d is feasible. Then c x* >= c x - (nu + g d) / tau. So a
bound costs one factorisation of P, and is as good as Newton's equation is solved; it decides when to stop, never what is
claimed. (Dual scaling: Benson, Ye, Zhang 2000, SIAM J. Optim. 10.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

AIM = 2.5  # the gap that a step aims at is this much smaller than the proved one; larger needs more centring
SEEK, SEEK_STEPS = 1.5, 7  # ratio and number of the tau at which a lower bound is looked for
LOST = 150  # steps (deep nets of slopes need some six a layer) without any lower bound after which another start is tried


@dataclass(frozen=True)
class Newton:
    """Newton's system at x in coordinates y that `lift` turns into steps d of x. All of shape (batch, v).

    solve: (batch, v, r) -> H^-1 of it. Raises numpy.linalg.LinAlgError where H has lost its digits.
    """

    cost: Array
    gradient: Array
    solve: Callable[[Array], Array]
    lift: Callable[[Array], Array]


class Program(Protocol):
    """A batch of programs of one shape. rows: which of the batch the rows of x (rows, v) belong to."""

    cost: Array
    degree: int

    def barrier(self, x: Array, rows: Array) -> Array:
        """F of each row, inf where it is not feasible."""

    def newton(self, x: Array, rows: Array) -> Newton:
        """Gradient and Hessian of F. x is feasible."""


@dataclass(frozen=True)
class Path:
    """x (batch, v) strictly feasible; lower (batch,): proved lower bounds of c x*, 0 where none was found. steps: Newton's."""

    x: Array
    lower: Array
    steps: int
    status: str

    def gap(self, cost: Array) -> Array:
        """(batch,): what may still be gained, relative to c x."""
        value = self.x @ cost
        return (value - self.lower) / value


def solve(program: Program, starts: list[Array], eps: float, go_on: Callable[[int], bool], max_steps: int = 400) -> Path:
    """Follow the central path from the first start; from the next where no lower bound was found on the way.

    starts: feasible (batch, v), for programs with c x* > 0. Ends where every gap is below eps, after max_steps from a start,
    or where go_on(steps so far) says no. The best of all points is returned.
    """
    best, steps = Path(cheapest(starts, program.cost), np.zeros(len(starts[0])), 0, "not started"), 0
    for start in starts:
        done = steps
        path = follow(program, start, eps, lambda n, done=done: go_on(done + n), max_steps)  # type: ignore[misc]
        steps += path.steps
        better = path.x @ program.cost < best.x @ program.cost
        x = np.where(better[:, None], path.x, best.x)
        best = Path(x, np.maximum(path.lower, best.lower), steps, path.status)
        if best.gap(program.cost).max() <= eps:
            return Path(best.x, best.lower, steps, "optimal")
        if not go_on(steps):
            break
    return best


def cheapest(starts: list[Array], cost: Array) -> Array:
    """Of each row the start with the least c x."""
    every = np.array(starts)
    return np.asarray(every[(every @ cost).argmin(axis=0), np.arange(every.shape[1])])


def follow(program: Program, x: Array, eps: float, go_on: Callable[[int], bool], max_steps: int) -> Path:
    """The central path from one start; rows that are done leave the batch."""
    c, nu = program.cost, program.degree
    x, lower = x.copy(), np.zeros(len(x))
    live, centred = np.arange(len(x)), False
    for step in range(max_steps):
        if not go_on(step):
            return Path(x, lower, step, "stopped")
        try:
            newton = program.newton(x[live], live)
            towards = newton.solve(np.stack([newton.cost, newton.gradient], axis=2))
        except np.linalg.LinAlgError:
            return Path(x, lower, step, "no more digits")
        along_c, along_g = towards[:, :, 0], towards[:, :, 1]
        nearest = -(newton.cost * along_g).sum(1) / (newton.cost * along_c).sum(1)  # the tau whose Newton step is shortest
        nearest = np.where(nearest > 0, nearest, nu / (x[live] @ c))
        proved = look_for_bounds(program, x[live], live, newton, towards, nearest)
        lower[live] = np.maximum(lower[live], proved)
        value = x[live] @ c
        going = value - lower[live] > eps * value
        if not going.any():
            return Path(x, lower, step + 1, "optimal")
        centred |= bool((proved > -np.inf).any())
        if step > LOST and not centred:
            return Path(x, lower, step + 1, "no lower bound")
        tau = np.where(proved > -np.inf, AIM * nu / (value - lower[live]), nearest)
        y = -(tau[:, None] * along_c + along_g)
        slope = ((tau[:, None] * newton.cost + newton.gradient) * y).sum(1)
        length = line_search(program, x[live], live, newton.lift(y), tau, slope)
        moved = (length > 0) & going
        x[live] += np.where(moved, length, 0.0)[:, None] * newton.lift(y)
        live = live[moved]
        if not len(live):
            return Path(x, lower, step + 1, "no more digits")
    return Path(x, lower, max_steps, "step limit")


def look_for_bounds(program: Program, x: Array, rows: Array, newton: Newton, towards: Array, nearest: Array) -> Array:
    """(batch,) the best lower bound of c x* that this Newton system proves; -inf where it proves none.

    It grows with tau as long as the reflected point is feasible: upwards from `nearest` while it is, else down until it is.
    """
    best, value = np.full(len(x), -np.inf), x @ program.cost
    upwards, tau = np.ones(len(x), bool), nearest.copy()
    looking = upwards.copy()
    for step in range(SEEK_STEPS):
        y = -(tau[:, None] * towards[:, :, 0] + towards[:, :, 1])
        feasible = np.isfinite(program.barrier(x - newton.lift(y), rows))
        bound = value - (program.degree + (newton.gradient * y).sum(1)) / tau
        best = np.where(feasible & looking, np.maximum(best, bound), best)
        if step == 0:
            upwards = feasible
        looking &= feasible == upwards
        if not looking.any():
            break
        tau = np.where(looking, tau * np.where(upwards, SEEK, 1.0 / SEEK), tau)
    return best


def line_search(program: Program, x: Array, rows: Array, d: Array, tau: Array, slope: Array) -> Array:
    """(batch,) step lengths near the least tau c x + F along d; 0 where rounding leaves nothing to gain."""
    along = tau * (d @ program.cost)
    here = program.barrier(x, rows)

    def gain(length: Array) -> Array:
        return length * along + program.barrier(x + length[:, None] * d, rows) - here

    decrement = np.sqrt(np.maximum(-slope, 0.0))
    length = np.where(decrement > 1.0, 1.0 / (1.0 + decrement), 1.0)  # the first is feasible and gains, whatever F is
    reached = gain(length)
    while ((reached > 0.1 * length * slope) & (length > 0)).any():
        short = reached > 0.1 * length * slope
        length = np.where(short, np.where(length > 1e-8, 0.7 * length, 0.0), length)
        reached = np.where(short, gain(length), reached)
    # A factorisation costs much less than a Newton system, so the length is worth a search.
    for factor, least in ((1.5, 0.0), (0.8, 1e-8)):
        trying = length > least
        while trying.any():
            tried = np.where(trying, factor * length, length)
            found = gain(tried)
            trying &= (found < reached) & (tried < 30)
            length, reached = np.where(trying, tried, length), np.where(trying, found, reached)
    return length
