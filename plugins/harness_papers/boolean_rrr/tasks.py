"""The tasks of the track: truth tables, arithmetic, codes, cellular automata, random circuits, digits. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness import Instance
from harness_papers.boolean_rrr.problem import BooleanProblem, LayeredNet, Table, as_bits
from harness_papers.boolean_rrr.scoring import Held


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


def parted(inputs: np.ndarray, outputs: np.ndarray, n_train: int) -> tuple[Table, Table]:
    """The first n_train items to learn from, the others to be judged by."""
    return Table(inputs[:n_train], outputs[:n_train]), Table(inputs[n_train:], outputs[n_train:])


def binary(numbers: np.ndarray, bits: int) -> np.ndarray:
    """(n,) integers as (n, bits) of 0 / 1, most significant first."""
    return numbers[:, None] >> np.arange(bits - 1, -1, -1) & 1


# Autoencoder ----------------------------------------------------------------------------------------------------------


AUTOENCODER_WIDTHS = {8: (8, 3, 8, 8), 16: (16, 4, 16, 16), 32: (32, 5, 32, 32)}  # without the encoder's own layer


def load_autoencoder(params: Any, ctx: Any) -> Instance:
    """As many random vectors as bits, all different, so that the narrow layer has just enough codes for them."""
    rng = ctx.rng("data")
    numbers = rng.choice(2**params.bits, size=params.bits, replace=False) if params.bits < 32 else distinct(rng, 2**32, 32)
    vectors = as_bits(binary(numbers, params.bits), "vectors")
    table = Table(vectors, vectors)
    widths = AUTOENCODER_WIDTHS[params.bits]
    return instance(BooleanProblem(table, (widths[0], *widths) if params.encoder else widths), table)


# Rule 30 --------------------------------------------------------------------------------------------------------------


RULE30_CELLS = 16
RULE30_WIDTHS = {1: (16, 32, 32, 16), 2: (16, 48, 48, 48, 16)}


def load_rule30(params: Any, ctx: Any) -> Instance:
    """Steps of rule 30 on a ring of 16 cells: n_train random worlds to learn from, n_test others to be judged by."""
    worlds = ctx.rng("data").choice(2**RULE30_CELLS, size=params.n_train + params.n_test, replace=False)
    before = after = binary(worlds, RULE30_CELLS)
    for _ in range(params.steps):
        after = rule30(after)
    train, test = parted(as_bits(before, "worlds"), as_bits(after, "worlds"), params.n_train)
    return instance(BooleanProblem(train, RULE30_WIDTHS[params.steps], gapstop=0.1), test)


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


# Random logic -----------------------------------------------------------------------------------------------------------


LOGIC_WIDTH = 32
GATE_SHARE = 0.5  # the other nodes copy


def load_random_logic(params: Any, ctx: Any) -> Instance:
    """A random circuit of 32 nodes a layer, and its values for random inputs; the net to find is as wide and as deep."""
    rng = ctx.rng("data")
    circuit = random_circuit(rng, params.depth, params.gates)
    inputs = rng.choice(np.array([-1, 1], dtype=np.int8), size=(params.n_train + params.n_test, LOGIC_WIDTH))
    train, test = parted(inputs, circuit.predict(inputs), params.n_train)
    return instance(BooleanProblem(train, (LOGIC_WIDTH,) * (params.depth + 1), gapstop=0.1), test)


def random_circuit(rng: np.random.Generator, depth: int, gates: str, width: int = LOGIC_WIDTH) -> LayeredNet:
    """Layers in which half of the nodes are gates of random inputs, and the others copies; each input inverted at random.

    gates: "and-or" (two inputs, AND or OR) or "majority" (three). The last input that a node takes is one that no node before
    it took, as long as fewer inputs are taken than there are nodes so far, so that values are seldom lost on the way.
    """
    arity, biased = {"and-or": (2, True), "majority": (3, False)}[gates]
    layers = []
    for _ in range(depth):
        weights = np.zeros((width, 1 + width))
        taken = np.zeros(width, dtype=bool)
        for node, row in enumerate(weights):
            is_gate = rng.random() < GATE_SHARE
            chosen: list[int] = []
            for last in [False] * ((arity if is_gate else 1) - 1) + [True]:
                wanted = ~taken if last and taken.sum() <= node else np.ones(width, dtype=bool)
                wanted[chosen] = False
                chosen.append(int(rng.choice(np.flatnonzero(wanted))))
                taken[chosen[-1]] = True
            row[[1 + source for source in chosen]] = rng.choice([-1, 1], size=len(chosen))
            row[0] = rng.choice([-1, 1]) if is_gate and biased else 0
        layers.append(weights)
    return LayeredNet(tuple(layers))


# Digits -----------------------------------------------------------------------------------------------------------------


DIGITS_WIDTHS = (64, 64, 10)
INK = 16  # levels of grey above 0


def load_boolean_digits(params: Any, ctx: Any) -> Instance:
    """scikit-learn's 8x8 digits: n_train to learn from, all others to be judged by; of the outputs one is on.

    Grey values go to [-1, 1] as they are; binary: +1 from half of the ink on.
    """
    from harness.data import load

    digits = load("digits")
    pixels = digits.x.reshape(len(digits.x), -1)
    inputs = pixels / (INK / 2) - 1 if params.ink == "grey" else as_bits(pixels >= INK / 2, "pixels")
    outputs = as_bits(np.arange(10) == digits.y[:, None], "labels")
    order = ctx.rng("split").permutation(len(inputs))
    train, test = parted(inputs[order], outputs[order], params.n_train)
    return instance(BooleanProblem(train, DIGITS_WIDTHS, sigma=5.0, gapstop=0.05), test)


# Any truth table --------------------------------------------------------------------------------------------------------


def load_truth_table(params: Any, ctx: Any) -> Instance:
    """The rows that the parameter gives; synthesis, so they are the test as well."""
    rows = [row.split(":") for row in params.table.split()]
    inputs, outputs = (as_bits([[int(bit) for bit in row[side]] for row in rows], "table") for side in (0, 1))
    table = Table(inputs, outputs)
    hidden = [int(width) for width in params.hidden.split("-")]
    return instance(BooleanProblem(table, (inputs.shape[1], *hidden, outputs.shape[1])), table)
