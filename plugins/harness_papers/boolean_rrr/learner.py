"""The learner `rrr`: searches until a gap is closed or the budget is spent, in C where it can and in torch elsewhere."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from harness import Unsupported
from harness_papers.boolean_rrr import c_search
from harness_papers.boolean_rrr.circuit import save_circuit
from harness_papers.boolean_rrr.method import Search
from harness_papers.boolean_rrr.offers import Offers
from harness_papers.boolean_rrr.problem import BooleanProblem, LayeredNet, Weights
from harness_papers.boolean_rrr.start import Settings, draw_start


class Searches(Protocol):
    """What both implementations are."""

    def step(self) -> NDArray[np.float64]: ...

    def weights(self, number: int) -> Weights: ...


def solve(problem: BooleanProblem, ctx: Any, params: Any) -> LayeredNet:
    """Search until a gap is below gapstop or the budget is spent; a step of the budget is one iteration of every search.

    At each offer the net with the most correct training bits so far is offered, of whichever search. Logs the implementation,
    best_gap, and iterations_to_solution once a gap is closed. Where the net is exact on the training items, its circuit is
    kept with the record. Raises Unsupported for a type or an implementation that cannot be served.
    """
    offers = Offers(ctx, problem)
    try:
        return seek(problem, ctx, params, offers)
    finally:  # the budget ends most searches from inside
        if offers.exact and not problem.analog and "circuit" not in ctx.diagnostics:  # a timing trial solves several times
            save_circuit(ctx, offers.best)


def seek(problem: BooleanProblem, ctx: Any, params: Any, offers: Offers) -> LayeredNet:
    search = make_search(problem, ctx, params)
    gapstop = problem.gapstop if params.gapstop is None else params.gapstop
    best_gap = np.inf
    iteration = 0
    while True:
        ctx.spend(steps=1, items_edges=params.starts * problem.items * problem.edges)
        with ctx.region("train_step"):
            gaps = search.step()
        iteration += 1
        best_gap = min(best_gap, gaps.min())
        solved = gaps.min() < gapstop
        if solved or offers.due():
            ctx.log(best_gap=best_gap, last_gap=gaps.min())
            for number in np.argsort(-gaps, kind="stable"):  # the smallest gap last: of equals the last is kept
                offers.consider(LayeredNet(search.weights(number)))
            offers.show()
        if solved:
            ctx.log(iterations_to_solution=iteration)
            return offers.best


def make_search(problem: BooleanProblem, ctx: Any, params: Any) -> Searches:
    """The searches at their start; the record says what computes them, and why it is not C."""
    if ctx.dtype not in (torch.float64, torch.float32):
        raise Unsupported(f"rrr needs dtype float64 (the paper's) or float32, not {ctx.dtype}")
    sigma = problem.sigma if params.sigma is None else params.sigma
    settings = Settings(sigma, params.beta, params.gamma)
    names = ["init/rrr", *(f"init/rrr.{number}" for number in range(1, params.starts))]
    starts = [draw_start(problem, ctx.rng(name)) for name in names]
    why = "asked for" if params.implementation == "torch" else why_torch(ctx)
    if not why:
        ctx.log(implementation="C")
        return c_search.CSearch(problem, settings, starts, ctx.threads)
    if params.implementation == "c":
        raise Unsupported(f"rrr: implementation c: {why}; write implementation: auto for torch in its place")
    ctx.log(implementation=f"torch: {why}")
    return Search(problem, settings, starts, ctx.dtype, ctx.device)


def why_torch(ctx: Any) -> str:
    """Why the C code cannot serve this trial, "" where it can."""
    if ctx.device.type != "cpu":
        return f"there is no C code for {ctx.device.type}"
    if ctx.dtype != torch.float64:
        return f"the C code is for float64, not {ctx.dtype}"
    return c_search.why_not()
