"""Where a search begins: what both implementations draw, in the same order, so that one seed is one search in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from harness import Diverged
from harness_papers.boolean_rrr.problem import BooleanProblem

HALF = float(np.sqrt(0.5))


@dataclass(frozen=True)
class Settings:
    """beta: step of RRR; gamma: rate of the metric's relaxation; sigma: margin = sqrt(fan-in / sigma)."""

    sigma: float
    beta: float
    gamma: float


@dataclass(frozen=True)
class Start:
    """One draw. edges: by layer (2, nodes, fan-in, items), sum and difference of weight and input; hidden: (nodes, items)."""

    edges: tuple[NDArray[np.float64], ...]
    hidden: NDArray[np.float64]


def draw_start(problem: BooleanProblem, rng: np.random.Generator) -> Start:
    """Weights, inputs and hidden values uniform in [-1, 1], in float64 whatever the search computes in."""
    edges = []
    for fan_in, width in fan_ins(problem.widths):
        w, x = rng.uniform(-1, 1, size=(2, width, fan_in, problem.items))
        edges.append(np.stack([w + x, w - x]) * HALF)
    return Start(tuple(edges), rng.uniform(-1, 1, size=(sum(problem.widths[1:-1]), problem.items)))


def fan_ins(widths: Sequence[int]) -> list[tuple[int, int]]:
    """(fan-in, nodes) of each layer of threshold functions; the bias source is one of the inputs."""
    return [(1 + before, width) for before, width in pairwise(widths)]


def input_values(problem: BooleanProblem) -> NDArray[np.float64]:
    """(1 + inputs, items): the bias source, always -1, then the data."""
    return np.concatenate([-np.ones((problem.items, 1)), problem.table.inputs], axis=1).T


def finite(gaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """The gaps as they are. Raises Diverged where one is not finite: a search must not run on to the end of its budget."""
    if not np.isfinite(gaps).all():
        raise Diverged("rrr: the gap is not finite")
    return gaps
