"""Clarabel and SCS through cvxpy, as an oracle and as a choice; what they return is repaired to a feasible point.

cvxpy, clarabel and scs are an extra: they are imported when they are asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Protocol

import numpy as np

from harness import Diverged, Unsupported
from harness_papers.lipsdp.problems import Array

MEND = "pip install 'paper-harness-papers[certify]'"
SOLVER_SHARE = 0.9  # of the seconds that are left: solvers look at the clock between iterations only, and the repair follows


class Affine(Protocol):
    """A program of `barrier` that shows its matrices."""

    cost: Array

    def matrices(self, x: Array, row: int) -> list[Array]:
        """The blocks of P(x), x (v,), of one of the batch."""

    def barrier(self, x: Array, rows: Array) -> Array: ...


@dataclass(frozen=True)
class Answer:
    """What the solver said. x: (v,), not yet feasible. value: its optimum, not yet a bound of anything."""

    x: Array
    value: float
    status: str
    iterations: int


def solve_conic(program: Affine, row: int, solver: str, eps: float, left: Callable[[str], float]) -> Answer:
    """Minimise c x over P(x) >= 0. One thread; left: clock -> what is left of it, where the solver stops.

    Raises Unsupported without the solver, Diverged where no numbers come back.
    """
    cp = import_cvxpy(solver)
    x = cp.Variable(len(program.cost))
    matrices = []
    for constant, columns in affine_parts(program, row):
        n = len(constant)
        matrices.append(cp.reshape(columns @ x, (n, n), order="F") + constant >> 0)
    task = cp.Problem(cp.Minimize(program.cost @ x), matrices)
    size = sum(one.args[0].shape[0] for one in matrices)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "may be inaccurate": the repair decides that, and the status is logged
        try:
            task.get_problem_data(solver.upper())  # cvxpy keeps it for `solve`; its seconds belong before the limit
            task.solve(solver=solver.upper(), **solver_options(solver, eps, left))
        except cp.error.SolverError as exc:
            raise Diverged(f"{solver} failed on an LMI of size {size}: {exc}") from exc
    if x.value is None or not np.isfinite(x.value).all():
        raise Diverged(f"{solver} ended with status {task.status!r} and no multipliers on an LMI of size {size}")
    return Answer(x.value, float(task.value), task.status, int(task.solver_stats.num_iters or 0))


def affine_parts(program: Affine, row: int) -> list[tuple[Array, Any]]:
    """(constant (n, n), sparse (n^2, v)) of each block, read off at 0 and at the unit vectors."""
    from scipy import sparse

    v = len(program.cost)
    constants = program.matrices(np.zeros(v), row)
    columns: list[list[Any]] = [[] for _ in constants]
    for i in range(v):
        unit = np.zeros(v)
        unit[i] = 1.0
        for kept, at, constant in zip(columns, program.matrices(unit, row), constants, strict=True):
            kept.append(sparse.csc_array((at - constant).reshape(-1, 1)))
    return [(constant, sparse.hstack(kept, format="csc")) for constant, kept in zip(constants, columns, strict=True)]


def import_cvxpy(solver: str) -> Any:
    """cvxpy, if it is there and has the solver; else Unsupported with the mend."""
    try:
        import cvxpy
    except ImportError as exc:
        raise Unsupported(f"solver={solver!r} needs cvxpy, which is not installed; {MEND}, or solver='ours'") from exc
    if solver.upper() not in cvxpy.installed_solvers():
        raise Unsupported(f"cvxpy has no solver {solver!r} here; {MEND}, or solver='ours'")
    return cvxpy


def solver_options(solver: str, eps: float, left: Callable[[str], float]) -> dict[str, Any]:
    """The solver's own words for tolerance, time and iterations."""
    left_s, left_iterations = left("wall_s") * SOLVER_SHARE, left("solver_iterations")
    if solver == "scs":
        options: dict[str, Any] = {"eps_abs": eps, "eps_rel": eps, "max_iters": int(min(left_iterations, 100_000))}
        return options | ({"time_limit_secs": left_s} if isfinite(left_s) else {})
    options = {f"tol_{what}": eps for what in ("gap_abs", "gap_rel", "feas")}
    options |= {"max_iter": int(min(left_iterations, 500)), "max_threads": 1}
    return options | ({"time_limit": left_s} if isfinite(left_s) else {})


def repair(program: Affine, row: int, x: Array, interior: Array, heads: int) -> tuple[Array, float]:
    """(a feasible point, share of `interior` in it): as near to the solver's as pays.

    Solvers are feasible only up to their tolerance. The LMI is affine, so mixing in a share of a strictly feasible point
    makes up for any violation; the numbers mu (the first `heads`) may be raised instead. The cheapest of all is taken, and
    share = 1 is always among them: every stop of a solver, early ones too, leaves a certificate.
    """
    shares = (0.0, *(10.0**-k for k in range(12, 0, -1)), 1.0)
    tried = []
    for share in shares:
        mixed = (1.0 - share) * x + share * interior
        for raised in (0.0, *(10.0**-k for k in range(12, -1, -1)), 10.0):
            point = mixed.copy()
            point[:heads] = abs(point[:heads]) * (1.0 + raised)
            if np.isfinite(program.barrier(point[None], np.array([row]))[0]):
                tried.append((float(program.cost @ point), share, point))
                break
    _, share, point = min(tried, key=lambda one: one[0])
    return point, share
