"""What a solution of the track is worth: circuits are scored from their weights, and what a method says of itself is not read.

NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import Invalid
from harness_papers.boolean_rrr.problem import BooleanNet, LayeredNet, Table, Weights, bit_share

GATE_RATIO = 0.1  # the card's "gate-ness": 4th over 3rd largest |weight|


@dataclass(frozen=True)
class Held:
    """What `score` opens: the training table again, the test table, and what the margin is measured against."""

    train: Table
    test: Table
    widths: tuple[int, ...]
    sigma: float


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


def score_classes(part: Held, solution: BooleanNet, params: Any, ctx: Any) -> dict[str, float]:
    """The same, and `class_share` where one output bit of each item is on."""
    return {**score(part, solution, params, ctx), "class_share": class_share(solution, part.test)}


def class_share(net: BooleanNet, table: Table) -> float:
    """Mean over items of 1 / n where the right class has its bit on, n bits being on; 0 where it is off. As the authors do."""
    on = net.predict(table.inputs) > 0
    return float(((on & (table.outputs > 0)).sum(axis=1) / np.maximum(on.sum(axis=1), 1)).mean())


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
