"""LipSDP: a certified Lipschitz bound of a network from a semidefinite program. NumPy; cvxpy is imported when it is needed.

Source: Fazlyab et al. 2019, arXiv:1906.04893, variants Neuron and Layer. LipSDP-Network is not offered: its coupled
multipliers are not valid (tests/plugins/lipsdp/test_method.py holds the counter-example).
Letters: W_k weights, k = 1..l; t_k >= 0 multipliers of hidden layer k; rho = L^2; [a, b] the slopes of the activation.
Certificates are float64 whatever the trial's dtype: float32 has too few digits to check them.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import Diverged, Unsupported
from harness_papers.lipsdp.activations import SLOPES, count_patterns, extreme_jacobians
from harness_papers.lipsdp.problems import Array, Bound, Multipliers, Network, NormProduct, SlopeVertices
from harness_papers.lipsdp.sampling import norms, quotient, steepest_pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness_papers.lipsdp import ExactParams, SampleParams, SdpParams

MEND = "pip install 'paper-harness-papers[certify]'"
SOLVER_SHARE = 0.9  # of the seconds that are left: solvers look at the clock between iterations only, and the repair follows
ROUND_UP = 1.0 + 1e-12  # on a finished claim: the scaling back and the square root round


# What the track calls ---------------------------------------------------------------------------------------------------


def solve_neuron(problem: Network, ctx: Any, params: SdpParams) -> Bound:
    """LipSDP-Neuron: one multiplier per hidden unit. Raises Unsupported without cvxpy, Diverged if no numbers come back."""
    return certify(problem, ctx, params, tied=False)


def solve_layer(problem: Network, ctx: Any, params: SdpParams) -> Bound:
    """LipSDP-Layer: one multiplier per hidden layer; looser. Raises as `solve_neuron`."""
    return certify(problem, ctx, params, tied=True)


def solve_norm_product(problem: Network, ctx: Any, params: Any) -> Bound:
    """What the activations can contribute times the product of the layers' operator norms: the trivial bound."""
    linf = problem.norm == "linf"
    norms = [abs(w).sum(axis=1).max() if linf else np.linalg.svd(w, compute_uv=False)[0] for w in problem.weights]
    return Bound(float(problem.slope_product * np.prod(norms)) * ROUND_UP, "upper", NormProduct())


def solve_sampled(problem: Network, ctx: Any, params: SampleParams) -> Bound:
    """The largest Jacobian norm over random inputs N(0, scale^2): a lower bound, whatever the number of samples."""
    points = params.scale * ctx.rng("samples").standard_normal((params.samples, problem.weights[0].shape[1]))
    pair = steepest_pair(problem, points)
    return Bound(quotient(problem, pair.x, pair.y), "lower", pair)


def solve_exact(problem: Network, ctx: Any, params: ExactParams) -> Bound:
    """The largest norm over all slope or swap patterns of a tiny net.

    Raises Unsupported above params.max_units hidden units; for groups of units above 2^max_units patterns.
    """
    if problem.grouped and count_patterns(problem) > 2**params.max_units:
        raise Unsupported(
            f"exact-masks: {count_patterns(problem)} swap patterns, max_units={params.max_units} allows 2 to that"
        )
    if not problem.grouped and problem.units > params.max_units:
        raise Unsupported(
            f"exact-masks: {problem.units} hidden units, max_units={params.max_units}; each more doubles the time"
        )
    return Bound(largest_over_patterns(problem) * ROUND_UP, "upper", SlopeVertices())


# The semidefinite program -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scaled:
    """A network with layers of norm 1 and at most n_1 inputs, for which the bound is `factor` times smaller.

    norms: what each layer was divided by.
    """

    weights: tuple[Array, ...]
    norms: tuple[float, ...]
    alpha: float
    beta: float

    @property
    def factor(self) -> float:
        return float(np.prod(self.norms))

    def unscale(self, t: list[Array]) -> tuple[Array, ...]:
        """Multipliers of the network itself: layer k's grow with the square of what follows it."""
        return tuple(layer * float(np.prod(self.norms[k + 1 :])) ** 2 for k, layer in enumerate(t))


@dataclass(frozen=True)
class Lmi:
    """P(rho, t) = rho I at the first `inputs` places + constant + sum_i t_i G_i, (n, n). Feasible where P >= 0 and t >= 0.

    per_unit: the G_i as columns of a sparse (n^2, N) matrix. hidden: sizes of the layers that t (N,) runs through.
    """

    constant: Array
    per_unit: Any
    inputs: int
    hidden: tuple[int, ...]

    def matrix(self, rho: float, t: Array) -> Array:
        return self.constant + (self.per_unit @ t).reshape(self.constant.shape) + rho * self.corner

    @property
    def corner(self) -> Array:
        """The matrix that rho multiplies."""
        return np.diag((np.arange(len(self.constant)) < self.inputs).astype(np.float64))

    def by_layer(self, t: Array) -> list[Array]:
        return np.split(t, np.cumsum(self.hidden)[:-1])


@dataclass(frozen=True)
class SdpResult:
    """What the solver said. t: (N,), >= 0. value: its rho, not yet a bound of anything."""

    t: Array
    value: float
    status: str
    iterations: int


def certify(problem: Network, ctx: Any, params: SdpParams, tied: bool) -> Bound:
    """Scale, solve, repair, and keep the certificate. The norm product is offered first, should the budget end the solver."""
    if problem.grouped or problem.norm != "l2":
        raise Unsupported(f"LipSDP by slopes is for {sorted(SLOPES)} in l2; got {problem.activation!r} in {problem.norm!r}")
    product = solve_norm_product(problem, ctx, params)
    if not problem.hidden or not all(weight.any() for weight in problem.weights):
        return product  # nothing to optimise: the product is the constant itself
    ctx.log(solver_status="not finished")
    ctx.offer(product)
    with ctx.region("certificate"):
        scaled = scale(problem)
        lmi = make_lmi(scaled)
        ctx.spend()  # ends here if building the problem has used up the budget
        result = solve_sdp(lmi, params, tied, ctx.left)
        ctx.spend(solver_iterations=result.iterations)
        rho, t, share = repair(lmi, result.t, interior_multipliers(scaled))
    evidence = Multipliers(scaled.unscale(lmi.by_layer(t)))
    bound = scaled.factor * sqrt(rho) * ROUND_UP
    ctx.log(
        solver_status=result.status,
        solver_bound=scaled.factor * sqrt(max(result.value, 0.0)),
        over_solver_bound=sqrt(rho / result.value) - 1.0 if result.value > 0 else inf,
        interior_share=share,
    )
    smallest = float(np.linalg.eigvalsh(lmi.matrix(rho, t))[0])
    ctx.save("certificate.json", certificate(problem, bound, evidence, params, result.status, smallest), "application/json")
    return Bound(bound, "upper", evidence)


def scale(problem: Network) -> Scaled:
    """Exact reductions: the triangular factor of W_1^T for W_1 where inputs outnumber units; each layer over its norm."""
    first = problem.weights[0]
    if first.shape[1] > first.shape[0]:
        first = np.linalg.qr(first.T, mode="r").T  # W_1 = R^T Q^T, and Q^T changes no norm
    weights = (first, *problem.weights[1:])
    norms = tuple(float(np.linalg.norm(weight, 2)) for weight in weights)
    return Scaled(tuple(w / norm for w, norm in zip(weights, norms, strict=True)), norms, problem.alpha, problem.beta)


def make_lmi(scaled: Scaled) -> Lmi:
    """The LMI of a network, unit by unit; `verify` assembles the same matrix from blocks.

    G_i = 2ab w w^T - (a+b) (w e^T + e w^T) + 2 e e^T, with w the unit's row of weights at the units before it and e
    its own place.
    """
    from scipy import sparse

    a, b, last = scaled.alpha, scaled.beta, scaled.weights[-1]
    starts = np.cumsum([0, *(weight.shape[1] for weight in scaled.weights)])
    n = int(starts[-1])
    columns = []
    for weight, before, here in zip(scaled.weights[:-1], starts[:-2], starts[1:-1], strict=True):
        for i, row in enumerate(weight):
            w = sparse.csc_array((row, (np.arange(before, before + len(row)), np.zeros(len(row), int))), shape=(n, 1))
            e = sparse.csc_array(([1.0], ([here + i], [0])), shape=(n, 1))
            g = 2 * a * b * (w @ w.T) - (a + b) * (w @ e.T + e @ w.T) + 2 * (e @ e.T)
            columns.append(g.reshape((n * n, 1)))
    constant = np.zeros((n, n))
    constant[starts[-2] :, starts[-2] :] = -last.T @ last
    hidden = tuple(weight.shape[0] for weight in scaled.weights[:-1])
    return Lmi(constant, sparse.hstack(columns, format="csc"), scaled.weights[0].shape[1], hidden)


def solve_sdp(lmi: Lmi, params: SdpParams, tied: bool, left: Callable[[str], float]) -> SdpResult:
    """Minimise rho over t >= 0 with P(rho, t) >= 0. One thread; left: clock -> what is left of it, where the solver stops."""
    cp = import_cvxpy(params.solver)
    n, layers = len(lmi.constant), len(lmi.hidden)
    rho, free = cp.Variable(), cp.Variable(layers if tied else sum(lmi.hidden), nonneg=True)
    t = np.repeat(np.eye(layers), lmi.hidden, axis=0) @ free if tied else free
    matrix = cp.reshape(lmi.per_unit @ t, (n, n), order="F") + rho * lmi.corner + lmi.constant
    task = cp.Problem(cp.Minimize(rho), [matrix >> 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "may be inaccurate": the repair decides that, and the status is logged
        try:
            task.get_problem_data(params.solver.upper())  # cvxpy keeps it for `solve`; its seconds belong before the limit
            task.solve(solver=params.solver.upper(), **solver_options(params, left))
        except cp.error.SolverError as exc:
            raise Diverged(f"{params.solver} failed on an LMI of size {n}: {exc}") from exc
    if t.value is None or not np.isfinite(t.value).all():
        raise Diverged(f"{params.solver} ended with status {task.status!r} and no multipliers on an LMI of size {n}")
    return SdpResult(np.maximum(t.value, 0.0), float(rho.value), task.status, int(task.solver_stats.num_iters or 0))


def import_cvxpy(solver: str) -> Any:
    """cvxpy, if it is there and has the solver; else Unsupported with the mend."""
    try:
        import cvxpy
    except ImportError as exc:
        raise Unsupported(f"LipSDP needs cvxpy, which is not installed; {MEND}") from exc
    if solver.upper() not in cvxpy.installed_solvers():
        raise Unsupported(f"cvxpy has no solver {solver!r} here; {MEND}")
    return cvxpy


def solver_options(params: SdpParams, left: Callable[[str], float]) -> dict[str, Any]:
    """The solver's own words for tolerance, time and iterations."""
    left_s, left_iterations = left("wall_s") * SOLVER_SHARE, left("solver_iterations")
    if params.solver == "scs":
        options: dict[str, Any] = {
            "eps_abs": params.eps,
            "eps_rel": params.eps,
            "max_iters": int(min(left_iterations, 100_000)),
        }
        return options | ({"time_limit_secs": left_s} if isfinite(left_s) else {})
    options = {f"tol_{what}": params.eps for what in ("gap_abs", "gap_rel", "feas")}
    options |= {"max_iter": int(min(left_iterations, 500)), "max_threads": 1}
    return options | ({"time_limit": left_s} if isfinite(left_s) else {})


# The repair: multipliers of a solver are feasible only up to its tolerance ------------------------------------------------


def repair(lmi: Lmi, t: Array, interior: Array) -> tuple[float, Array, float]:
    """(rho, multipliers, share of `interior` in them): strictly feasible, as near to the solver's as pays.

    The LMI is affine, so mixing in a share of strictly feasible multipliers makes up for any violation of the solver's, and
    the smallest rho for given t is an eigenvalue problem. The share that gives the smallest rho is taken; share = 1 is always
    feasible, so every stop of a solver, early ones too, leaves a certificate.
    """
    shares = (0.0, *(10.0**-k for k in range(12, 0, -1)), 1.0)
    tried = [(smallest_rho(lmi, (1.0 - share) * t + share * interior), share) for share in shares]
    rho, share = min(tried)
    return rho, (1.0 - share) * t + share * interior, share


def interior_multipliers(scaled: Scaled) -> Array:
    """Multipliers (N,) that satisfy the LMI with room: those of the norm product, each layer's a tenth above what it needs.

    s_k (b^2 |W_k z_{k-1}|^2 - |z_k|^2) exceeds the constraint with t_k = s_k b / (b - a) for every z (the difference is a
    square), so s_k > b^2 s_{k+1} ||W_{k+1}||^2 and s_{l-1} > ||W_l||^2 suffice; the norms are 1 here.
    """
    s, made = 1.1, []
    for weight in reversed(scaled.weights[:-1]):
        made.append(np.full(weight.shape[0], s * scaled.beta / (scaled.beta - scaled.alpha)))
        s *= 1.1 * scaled.beta**2
    return np.concatenate(made[::-1])


def smallest_rho(lmi: Lmi, t: Array) -> float:
    """The least rho with P(rho, t) >= 0, by the Schur complement of the hidden block; inf where that is not safely > 0."""
    p, inputs = lmi.matrix(0.0, t), lmi.inputs
    diagonal = np.diag(p)[inputs:]
    if not (diagonal > 0).all():
        return inf
    unit = 1.0 / np.sqrt(diagonal)
    # The margin is what a check in float64 loses: about n rounding errors of each of n pivots.
    margin = 1e-12 + 8e-15 * len(p) ** 2
    block = p[inputs:, inputs:] * unit[:, None] * unit[None, :] - margin * np.eye(len(unit))
    try:
        factor = np.linalg.cholesky(block)
    except np.linalg.LinAlgError:
        return inf
    half = np.linalg.solve(factor, unit[:, None] * p[inputs:, :inputs])
    rho = float(np.linalg.eigvalsh(half.T @ half - p[:inputs, :inputs])[-1])
    return rho * (1.0 + 4 * margin) if rho > 0 else inf


def certificate(
    problem: Network, bound: float, evidence: Multipliers, params: SdpParams, status: str, smallest: float
) -> bytes:
    """All that a third party needs besides the weights to check the bound. Floats are read back exactly.

    smallest: the smallest eigenvalue of the LMI with these multipliers and this rho, in the units of the scaled network.
    """
    content = {
        "schema": "harness_papers.lipsdp/certificate/1",
        "sizes": [problem.weights[0].shape[1], *(weight.shape[0] for weight in problem.weights)],
        "activation": problem.activation,
        "alpha": problem.alpha,
        "beta": problem.beta,
        "norm": problem.norm,
        "bound": bound,
        "rho": bound**2,
        "multipliers": [layer.tolist() for layer in evidence.t],
        "min_eigenvalue_scaled": smallest,
        "solver": params.solver,
        "solver_eps": params.eps,
        "solver_status": status,
    }
    return json.dumps(content, indent=1, allow_nan=False).encode()


# The oracle for tiny nets -------------------------------------------------------------------------------------------------


def largest_over_patterns(problem: Network) -> float:
    """max ||W_l D_{l-1} ... D_1 W_1|| over the extreme Jacobians D of each layer, in l2 from the eigenvalues of J J^T.

    Exact for one hidden layer whose patterns all occur; in general an upper bound, and the least that LipSDP can reach.
    """

    def descend(layer: int, chain: Array) -> float:
        if layer == len(problem.hidden):
            return float(norms(problem, chain[None])[0])
        return max(descend(layer + 1, problem.weights[layer + 1] @ (d @ chain)) for d in extreme_jacobians(problem, layer))

    return descend(0, problem.weights[0])
