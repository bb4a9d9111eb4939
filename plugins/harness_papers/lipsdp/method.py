"""The methods of the track `certify`: certified Lipschitz bounds from semidefinite programs, and what they are compared with.

Sources: LipSDP (Fazlyab et al. 2019, arXiv:1906.04893), variants Neuron and Layer; LipSDP-NSR and -RR (Pauli et al. 2024,
arXiv:2401.14033). LipSDP-Network is not offered: its coupled multipliers are not valid (tests/plugins/lipsdp/test_method.py
holds the counter-example).
The programs and their solvers are in `solvers`; what they return counts only as far as `verify` proves it.
Certificates are float64 whatever the trial's dtype: float32 has too few digits to check them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import Invalid, Unsupported
from harness_papers.lipsdp.activations import SLOPES, count_patterns, extreme_jacobians
from harness_papers.lipsdp.certificates import certificate, evidence_of
from harness_papers.lipsdp.problems import Array, Bound, Network, NormProduct, OfUnits, PerOutput, SlopeVertices
from harness_papers.lipsdp.sampling import norms, quotient, steepest_pair
from harness_papers.lipsdp.solvers import barrier, forms, general
from harness_papers.lipsdp.solvers.chain import ChainProgram
from harness_papers.lipsdp.solvers.neuron import SlopeProgram
from harness_papers.lipsdp.solvers.reductions import Scaled, scale
from harness_papers.lipsdp.verify import margin, prove

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness_papers.lipsdp import ExactParams, SampleParams, SdpParams

ROUND_UP = 1.0 + 1e-12  # on a finished claim: the scaling back and the square root round
LARGEST_DENSE = 6000  # signed squares; their Gram matrix and its square are then 0.6 GB


# What the track calls ---------------------------------------------------------------------------------------------------


def solve_neuron(problem: Network, ctx: Any, params: SdpParams) -> Bound:
    """LipSDP-Neuron: one multiplier per hidden unit. Raises Unsupported for groups of units, and without the solver."""
    return certify(problem, ctx, params, "neuron")


def solve_layer(problem: Network, ctx: Any, params: SdpParams) -> Bound:
    """LipSDP-Layer: one multiplier per hidden layer; looser. Raises as `solve_neuron`."""
    return certify(problem, ctx, params, "layer")


def solve_nsr(problem: Network, ctx: Any, params: SdpParams) -> Bound:
    """LipSDP-NSR in chained form (S = P = 0). Raises Unsupported for activations of single units."""
    return certify(problem, ctx, params, "chain")


def solve_nsr_full(problem: Network, ctx: Any, params: SdpParams) -> Bound:
    """LipSDP-NSR with T, S and P, for small nets. Raises as `solve_nsr`, and for large nets."""
    return certify(problem, ctx, params, "full")


def solve_nsr_null(problem: Network, ctx: Any, params: SdpParams) -> Bound:
    """LipSDP-NSR on the space where groups keep their sum: never looser than T, S, P. Raises as `solve_nsr_full`."""
    return certify(problem, ctx, params, "null")


def solve_rr(problem: Network, ctx: Any, params: SdpParams) -> Bound:
    """LipSDP-RR, the baseline that writes MaxMin as residual ReLU. Raises Unsupported for all but MaxMin."""
    return certify(problem, ctx, params, "residual")


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


# The semidefinite programs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A batch of programs, one per output in l-infinity and one in l2, and strictly feasible points of them (batch, v)."""

    program: Any
    starts: list[Array]


@dataclass(frozen=True)
class Found:
    """Feasible points (v,), one per output in l-infinity, and what the solver said: values and lower bounds of the optima."""

    points: list[Array]
    values: list[float]
    lower: list[float]
    iterations: int
    status: str
    share: float = 0.0


def certify(problem: Network, ctx: Any, params: SdpParams, kind: str) -> Bound:
    """Scale, solve, prove, and keep the certificate. The norm product is offered first, should the budget end the solver."""
    check_kind(problem, kind)
    product = solve_norm_product(problem, ctx, params)
    if not problem.hidden or not all(weight.any() for weight in problem.weights):
        return product  # nothing to optimise: the product is the constant itself
    ctx.log(solver_status="not finished")
    ctx.offer(product)
    with ctx.region("certificate"):
        scaled = scale(problem)
        tasks = make_tasks(problem, scaled, kind)
        ctx.spend()  # ends here if building the programs has used up the budget
        found = find(problem, tasks, params, ctx.left)
        ctx.spend(solver_iterations=found.iterations)
        evidence = evidence_of(problem, kind, scaled, tasks[0].program, found.points)
        cost = tasks[0].program.cost
        claim = scaled.factor * float(np.sqrt(max(x @ cost for x in found.points))) * ROUND_UP
        proved = prove_or_none(problem, claim, evidence)
    lower = scaled.factor * float(np.sqrt(max(found.lower)))
    ctx.log(
        solver_status=found.status if proved else "not proved",
        solver_bound=scaled.factor * float(np.sqrt(max(*found.values, 0.0))),
        program_lower_bound=lower,
        over_lower_bound=proved.bound / lower - 1.0 if proved and lower > 0 else inf,
        interior_share=found.share,
    )
    if not proved or (found.status != "optimal" and proved.bound > product.bound):  # stopped early
        return product
    smallest = margin(problem, proved.bound, evidence)
    said = {"solver": params.solver, "solver_eps": params.eps, "solver_status": found.status, "program_lower_bound": lower}
    ctx.save("certificate.json", certificate(problem, proved.bound, evidence, smallest, said), "application/json")
    return proved


def check_kind(problem: Network, kind: str) -> None:
    """Raises Unsupported where the constraints say nothing about the activation, or the net is too large for this kind."""
    if kind in ("neuron", "layer"):
        if problem.grouped:
            raise Unsupported(f"LipSDP by slopes is for {sorted(SLOPES)}; got {problem.activation!r}; use lipsdp-nsr")
        return
    if not problem.grouped:
        raise Unsupported(f"this method is for groupsort and householder; got {problem.activation!r}; use lipsdp-neuron")
    if kind == "residual" and (problem.activation, problem.group) != ("groupsort", 2):
        raise Unsupported(f"LipSDP-RR is for MaxMin; got {problem.activation!r} in groups of {problem.group}")
    if kind != "chain" and 3 * problem.units > LARGEST_DENSE:
        raise Unsupported(f"this method is for small nets, up to {LARGEST_DENSE // 3} units; got {problem.units}")


def make_tasks(problem: Network, scaled: Scaled, kind: str) -> list[Task]:
    """The chain is one batch of all outputs; of the others each output is a program of its own."""
    if kind == "chain":
        chain = ChainProgram(problem, scaled)
        return [Task(chain, chain.starts())]
    if problem.norm == "l2":
        return [make_task(problem, scaled, kind)]
    rows = [replace(scaled, weights=(*scaled.weights[:-1], row[None])) for row in scaled.weights[-1]]
    return [make_task(problem, row, kind) for row in rows]


def make_task(problem: Network, scaled: Scaled, kind: str) -> Task:
    """One program."""
    groups = [size // problem.group for size in problem.hidden]
    if kind in ("neuron", "layer"):
        slopes = SlopeProgram(scaled, kind == "layer", problem.weights[0].shape[1] if problem.norm == "linf" else 1)
        return Task(slopes, slopes.starts())
    if kind == "null":
        return Task(forms.null_space(problem, scaled), [forms.sorting_start(problem, groups)])
    if kind == "full":
        return Task(forms.full(problem, scaled), [forms.sorting_start(problem, [2 * count for count in groups])])
    return Task(forms.residual(problem, scaled), [forms.residual_start(problem)])


def find(problem: Network, tasks: list[Task], params: SdpParams, left: Callable[[str], float]) -> Found:
    """Solve all programs with the solver asked for, within what is left of the clocks; the iterations add up."""
    parts: list[Found] = []
    for done, task in enumerate(tasks):
        rest = share_of(left, len(tasks) - done, sum(part.iterations for part in parts))
        parts.append(ours(task, params, rest) if params.solver == "ours" else generals(problem, task, params, rest))
    return Found(
        [x for part in parts for x in part.points],
        [value for part in parts for value in part.values],
        [value for part in parts for value in part.lower],
        sum(part.iterations for part in parts),
        next((part.status for part in parts if part.status != "optimal"), "optimal"),
        max(part.share for part in parts),
    )


def share_of(left: Callable[[str], float], tasks: int, used: int) -> Callable[[str], float]:
    """What one of so many tasks still to come may use: an equal part of the seconds, and all iterations that are not used."""
    seconds = left("wall_s")
    others = seconds * (1.0 - 1.0 / tasks) if isfinite(seconds) else 0.0
    return lambda clock: left(clock) - (others if clock == "wall_s" else used)


def ours(task: Task, params: SdpParams, left: Callable[[str], float]) -> Found:
    """The barrier method: each iterate is feasible, so wherever the clocks end it there is a certificate."""
    steps, seconds = left("solver_iterations"), left("wall_s")
    spare = (1.0 - general.SOLVER_SHARE) * seconds if isfinite(seconds) else -inf

    def go_on(done: int) -> bool:
        return done < steps and left("wall_s") > spare

    path = barrier.solve(task.program, task.starts, params.eps, go_on)
    return Found(list(path.x), list(path.x @ task.program.cost), list(path.lower), path.steps, path.status)


def generals(problem: Network, task: Task, params: SdpParams, left: Callable[[str], float]) -> Found:
    """Clarabel or SCS, each program of the batch after the other, repaired. They prove no lower bound."""
    heads = problem.weights[0].shape[1] if problem.norm == "linf" else 1
    points, values, iterations, statuses, shares = [], [], 0, [], []
    for row, interior in enumerate(barrier.cheapest(task.starts, task.program.cost)):
        rest = lambda clock, used=iterations: left(clock) - (used if clock == "solver_iterations" else 0)  # noqa: E731
        if rest("solver_iterations") < 1:  # an earlier output used them up
            answer, point, share = (
                general.Answer(interior, float(task.program.cost @ interior), "not started", 0),
                interior,
                1.0,
            )
        else:
            answer = general.solve_conic(task.program, row, params.solver, params.eps, rest)
            point, share = general.repair(task.program, row, answer.x, interior, heads)
        points.append(point)
        values.append(answer.value)
        iterations += answer.iterations
        statuses.append(answer.status)
        shares.append(share)
    status = next((status for status in statuses if status != "optimal"), "optimal")
    return Found(points, values, [0.0] * len(points), iterations, status, max(shares))


def prove_or_none(problem: Network, claim: float, evidence: OfUnits | PerOutput) -> Bound | None:
    """The bound that the multipliers prove, at most 1 % of rho above the claim; None where they do not."""
    try:
        return Bound(prove(problem, Bound(claim, "upper", evidence)).bound, "upper", evidence)
    except Invalid:
        return None


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
