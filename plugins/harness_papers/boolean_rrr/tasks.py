"""The tasks of the track `boolean`: tables made from arithmetic, random bits or a cellular automaton, and their scores.

NumPy only. The circuits are scored from their weights: what a method says of itself is not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import Instance, Invalid
from harness_papers.boolean_rrr.problem import BooleanNet, BooleanProblem, LayeredNet, Table, Weights, as_bits, bit_share

GATE_RATIO = 0.1  # the card's "gate-ness": 4th over 3rd largest |weight|


@dataclass(frozen=True)
class Held:
    """What `score` opens: the training table again, the test table, and what the margin is measured against."""

    train: Table
    test: Table
    widths: tuple[int, ...]
    sigma: float


def instance(problem: BooleanProblem, test: Table) -> Instance:
    return Instance(problem, {"test": Held(problem.table, test, problem.widths, problem.sigma)})


# Multiplier -----------------------------------------------------------------------------------------------------------


MULTIPLIER_WIDTHS = {2: (4, 4, 4, 4), 3: (6, 12, 12, 12, 6)}
MULTIPLIER_GAPSTOP = {2: 0.01, 3: 0.02}


def load_multiplier(params: Any, ctx: Any) -> Instance:
    """The whole truth table is the training data and the test data: a task of synthesis, nothing is left to generalise to."""
    table = multiplier_table(params.bits)
    problem = BooleanProblem(table, MULTIPLIER_WIDTHS[params.bits], gapstop=MULTIPLIER_GAPSTOP[params.bits])
    return instance(problem, table)


def multiplier_table(bits: int) -> Table:
    """All products of two numbers of `bits` bits: 4**bits items, 2 * bits bits in and out, most significant first."""
    numbers = np.arange(2**bits)
    first, second = (side.reshape(-1) for side in np.meshgrid(numbers, numbers, indexing="ij"))
    inputs = np.concatenate([binary(first, bits), binary(second, bits)], axis=1)
    return Table(as_bits(inputs, "inputs"), as_bits(binary(first * second, 2 * bits), "outputs"))


def binary(numbers: np.ndarray, bits: int) -> np.ndarray:
    """(n,) integers as (n, bits) of 0 / 1, most significant first."""
    return numbers[:, None] >> np.arange(bits - 1, -1, -1) & 1


# Autoencoder ----------------------------------------------------------------------------------------------------------


AUTOENCODER_WIDTHS = {8: (8, 3, 8, 8), 16: (16, 4, 16, 16), 32: (32, 5, 32, 32)}


def load_autoencoder(params: Any, ctx: Any) -> Instance:
    """As many random vectors as bits, all different, so that the narrow layer has just enough codes for them."""
    rng = ctx.rng("data")
    numbers = rng.choice(2**params.bits, size=params.bits, replace=False) if params.bits < 32 else distinct(rng, 2**32, 32)
    vectors = as_bits(binary(numbers, params.bits), "vectors")
    table = Table(vectors, vectors)
    return instance(BooleanProblem(table, AUTOENCODER_WIDTHS[params.bits]), table)


# Rule 30 --------------------------------------------------------------------------------------------------------------


RULE30_CELLS = 16
RULE30_WIDTHS = (16, 32, 32, 16)


def load_rule30(params: Any, ctx: Any) -> Instance:
    """One step of rule 30 on a ring of 16 cells: n_train random worlds to learn from, n_test others to be judged by."""
    worlds = ctx.rng("data").choice(2**RULE30_CELLS, size=params.n_train + params.n_test, replace=False)
    before = binary(worlds, RULE30_CELLS)
    inputs, outputs = as_bits(before, "worlds"), as_bits(rule30(before), "worlds")
    train = Table(inputs[: params.n_train], outputs[: params.n_train])
    test = Table(inputs[params.n_train :], outputs[params.n_train :])
    return instance(BooleanProblem(train, RULE30_WIDTHS, gapstop=0.1), test)


def rule30(worlds: np.ndarray) -> np.ndarray:
    """One step on a ring, (items, cells) of 0 / 1: a cell becomes left xor (itself or right)."""
    left, right = np.roll(worlds, 1, axis=1), np.roll(worlds, -1, axis=1)
    return left ^ (worlds | right)


def distinct(rng: np.random.Generator, below: int, count: int) -> np.ndarray:
    """`count` different integers in [0, below), for ranges too large to shuffle."""
    found: dict[int, None] = {}
    while len(found) < count:
        found[int(rng.integers(below))] = None
    return np.array(list(found), dtype=np.int64)


# Scores ---------------------------------------------------------------------------------------------------------------


def score(part: Held, solution: BooleanNet, params: Any, ctx: Any) -> dict[str, float]:
    """See METRICS in the plugin's declaration. Raises Invalid for weights or bits of a wrong shape, or not finite."""
    check_solution(solution, part)
    circuit = LayeredNet(tuple(np.asarray(weight, dtype=np.float64) for weight in solution.weights))
    train_bits = bit_share(solution, part.train)
    return {
        "solved": float(train_bits == 1.0),
        "circuit_solved": float(bit_share(circuit, part.train) == 1.0),
        "train_bits": train_bits,
        "test_bits": bit_share(solution, part.test),
        "gate_share": gate_share(circuit.weights),
        "margin": margin(circuit, part.train, part.sigma),
    }


def check_solution(solution: BooleanNet, part: Held) -> None:
    shapes = [np.shape(weight) for weight in solution.weights]
    expected = [(width, 1 + before) for before, width in zip(part.widths, part.widths[1:], strict=False)]
    if shapes != expected:
        raise Invalid(f"weights have shapes {shapes}; the task's net has {expected} (column 0: the bias source)")
    if not all(np.isfinite(weight).all() for weight in solution.weights):
        raise Invalid("weights are not all finite")
    for table in (part.train, part.test):
        bits = np.asarray(solution.predict(table.inputs))
        if bits.shape != table.outputs.shape or not np.isin(bits, (-1, 1)).all():
            found = f"shape {bits.shape}, values {np.unique(bits)[:5]}"
            raise Invalid(f"predict gave {found}; expected {table.outputs.shape} of -1 / +1")


def gate_share(weights: Weights) -> float:
    """Share of nodes whose 4th largest |weight| is below a tenth of the 3rd: gates of three inputs (or two and the bias).

    A node with at most three inputs counts as a gate; so does one whose weights beyond the first are exactly 0 (a copy).
    """
    nodes = [np.sort(np.abs(row))[::-1] for weight in weights for row in weight]
    return float(np.mean([len(w) < 4 or w[3] < GATE_RATIO * w[2] or w[3] == 0 for w in nodes]))


def margin(circuit: LayeredNet, table: Table, sigma: float) -> float:
    """The smallest |w.x| over nodes and items, with |w|^2 = m, in units of the required margin sqrt(m / sigma).

    At output nodes it is label * (w.x), so 1 or more says that the weights are a point of the paper's constraint sets. 0
    where the circuit gives a wrong bit, and where a node has no weight at all.
    """
    per_layer = circuit.pre_activations(table.inputs)
    signed = [np.abs(z) for z in per_layer[:-1]] + [per_layer[-1] * table.outputs]
    norms = [np.linalg.norm(weight, axis=1) for weight in circuit.weights]
    if not all(norm.all() for norm in norms):
        return 0.0
    smallest = min(float((z / norm).min()) for z, norm in zip(signed, norms, strict=True))
    return max(0.0, float(np.sqrt(sigma)) * smallest)
