"""From a solver's multipliers to evidence in the network's own coordinates, and to the file that is kept with the record."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np

from harness_papers.lipsdp.problems import (
    Array,
    GroupMultipliers,
    Multipliers,
    Network,
    NullSpaceMultipliers,
    OfUnits,
    PerOutput,
    ResidualMultipliers,
)
from harness_papers.lipsdp.solvers.chain import ChainProgram
from harness_papers.lipsdp.solvers.forms import FREE
from harness_papers.lipsdp.solvers.neuron import SlopeProgram
from harness_papers.lipsdp.solvers.reductions import Scaled

SCHEMA = "harness_papers.lipsdp/certificate/2"


def evidence_of(problem: Network, kind: str, scaled: Scaled, program: Any, points: list[Array]) -> OfUnits | PerOutput:
    """points: x (v,) of each program, one in l2, one per output in l-infinity."""
    heads = problem.weights[0].shape[1] if problem.norm == "linf" else 1
    found = [of_units(problem, kind, scaled, program, x[heads:], x) for x in points]
    if problem.norm == "l2":
        return rescaled(found[0], scaled, 1.0)
    # With 2 rho - sum mu = rho: mu and t over rho, where rho^2 = sum mu before.
    rhos = [scaled.factor * float(np.sqrt(x[:heads].sum())) for x in points]
    mu = tuple(x[:heads] * (scaled.factor**2 / rho) for x, rho in zip(points, rhos, strict=True))
    return PerOutput(mu, tuple(rescaled(one, scaled, 1.0 / rho) for one, rho in zip(found, rhos, strict=True)))


def of_units(problem: Network, kind: str, scaled: Scaled, program: Any, t: Array, x: Array) -> OfUnits:
    """Multipliers of the scaled network."""
    groups = [size // problem.group for size in problem.hidden]
    if isinstance(program, SlopeProgram):
        return Multipliers(tuple(program.split(x)[1]))
    if isinstance(program, ChainProgram):
        pairs = program.multipliers(x[None])
        lam, rest = tuple(pair[0][0] for pair in pairs), tuple(pair[1][0] for pair in pairs)
        zero = tuple(np.zeros(count) for count in groups)
        squared = kept_sizes(problem)
        return GroupMultipliers(lam, tuple(g / s for g, s in zip(rest, squared, strict=True)), zero, zero)
    if kind == "full":
        parts = np.split(t, np.cumsum(np.repeat(groups, 2))[:-1])
        squared = kept_sizes(problem)
        sigma = tuple(of / s for of, s in zip(parts[1::2], squared, strict=True))
        eta = tuple(FREE / s for s in squared)
        # -QC = sigma (b^2 - a^2) + eta (a - b)^2 on what is kept: gamma = sigma + eta, nu = 0, tau = eta
        gamma = tuple(s + e for s, e in zip(sigma, eta, strict=True))
        return GroupMultipliers(tuple(parts[0::2]), gamma, tuple(0.0 * e for e in eta), eta)
    if kind == "null":
        return NullSpaceMultipliers(tuple(np.split(t, np.cumsum(groups)[:-1])))
    return ResidualMultipliers(tuple(np.split(t, np.cumsum(problem.hidden)[:-1])))


def kept_sizes(problem: Network) -> list[Array]:
    """|K|^2 of each group (n_k / group,): what divides a multiplier of an orthonormal basis of the kept space."""
    if problem.activation == "groupsort":
        return [np.full(size // problem.group, float(problem.group)) for size in problem.hidden]
    return [(v * v).sum(axis=1) for v in problem.directions]


def rescaled(evidence: OfUnits, scaled: Scaled, factor: float) -> OfUnits:
    """Layer k's multipliers grow with the square of what follows it."""
    parts = {f.name: tuple(of * factor for of in scaled.unscale(list(getattr(evidence, f.name)))) for f in fields(evidence)}
    return type(evidence)(**parts)


def certificate(problem: Network, bound: float, evidence: OfUnits | PerOutput, smallest: float, said: dict[str, Any]) -> bytes:
    """All that a third party needs besides the weights to check the bound. Floats are read back exactly.

    bound: as proved. smallest: the smallest eigenvalue of the inequalities with it, each scaled to a diagonal in [1, 4).
    said: of the solver.
    """
    content = {
        "schema": SCHEMA,
        "sizes": [problem.weights[0].shape[1], *(weight.shape[0] for weight in problem.weights)],
        "activation": problem.activation,
        "group": problem.group,
        "alpha": problem.alpha,
        "beta": problem.beta,
        "norm": problem.norm,
        "bound": bound,
        "rho": bound**2 if problem.norm == "l2" else bound,
        "evidence": type(evidence).__name__,
        **plain(evidence),
        "min_eigenvalue_scaled": smallest,
        **said,
    }
    return json.dumps(content, indent=1, allow_nan=False).encode()


def plain(evidence: OfUnits | PerOutput) -> dict[str, Any]:
    """The evidence as lists."""
    if isinstance(evidence, PerOutput):
        rows = [{"evidence": type(row).__name__, **plain(row)} for row in evidence.rows]
        return {"mu": [mu.tolist() for mu in evidence.mu], "rows": rows}
    names = {"t": "multipliers"}
    return {names.get(f.name, f.name): [layer.tolist() for layer in getattr(evidence, f.name)] for f in fields(evidence)}
