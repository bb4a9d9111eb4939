"""A circuit's texts evaluate to what the net's threshold functions give, for all inputs; gates are read for what they are."""

from __future__ import annotations

import itertools
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from harness_papers.boolean_rrr import MultiplierParams, RRRParams
from harness_papers.boolean_rrr.circuit import TooWide, read_circuit, read_gate, save_circuit, to_blif, to_svg, to_verilog
from harness_papers.boolean_rrr.learner import solve
from harness_papers.boolean_rrr.problem import LayeredNet
from harness_papers.boolean_rrr.tasks import load_multiplier, multiplier_table

from harness.errors import BudgetSpent

from .logic_texts import run_blif, run_verilog


def all_inputs(bits: int) -> np.ndarray:
    return np.array(list(itertools.product([-1, 1], repeat=bits)), dtype=np.int8)


def threshold_outputs(net: LayeredNet, inputs: np.ndarray) -> np.ndarray:
    """The weights as threshold functions, in integers where the test's weights are such."""
    return LayeredNet(net.weights).predict(inputs) > 0


@pytest.mark.parametrize("seed", range(30))
def test_the_texts_of_random_nets_give_what_the_nets_give_for_all_inputs(seed):
    """Real weights, weights of few sizes (ties, constants) and sparse ones: every kind of function occurs."""
    rng = np.random.default_rng(seed)
    widths = (5, 4, 3, 3)
    shapes = [(after, 1 + before) for before, after in itertools.pairwise(widths)]
    kinds = [
        lambda shape: rng.normal(size=shape),
        lambda shape: rng.integers(-2, 3, shape).astype(float),
        lambda shape: rng.normal(size=shape) ** 5,
    ]
    net = LayeredNet(tuple(kinds[seed % 3](shape) for shape in shapes))
    inputs = all_inputs(5)

    circuit = read_circuit(net)

    expected = threshold_outputs(net, inputs)
    np.testing.assert_array_equal(run_verilog(to_verilog(circuit), inputs > 0), expected)
    np.testing.assert_array_equal(run_blif(to_blif(circuit), inputs > 0), expected)


@pytest.mark.parametrize(
    ("row", "kind", "inputs", "inverted"),
    [
        ([1, 1, 1, 0], "and", (0, 1), (False, False)),  # column 0 multiplies -1
        ([-1, 1, 0, -1], "or", (0, 2), (False, True)),
        ([0, 1, -1, 1], "majority", (0, 1, 2), (False, True, False)),
        ([0, 0, -2, 0], "copy", (1,), (True,)),
        ([5, 1, 1, 1], "0", (), ()),
        ([-5, 1, 1, 1], "1", (), ()),
        ([1.29, -0.01, 1.2935, -0.018, 1.2897], "and", (1, 3), (False, False)),  # as a search leaves it
        ([0.3, 1.0, 1.0, 1.0], "majority", (0, 1, 2), (False, False, False)),
        ([0, 3, 2, 2, 1.5], "threshold", (0, 1, 2, 3), (False,) * 4),
        ([1, 1, 0, 0], "0", (), ()),  # w.x is -2 or 0, and a tie counts as -1
    ],
)
def test_a_node_is_the_gate_that_its_signs_say(row, kind, inputs, inverted):
    """Weights that never change the sign drop out, for all inputs and not only for those of the data."""
    gate = read_gate((1, 0), row)

    assert gate.kind == kind
    assert gate.inputs == tuple((0, number) for number in inputs)
    assert gate.inverted == inverted


def test_nodes_that_no_output_needs_are_left_out():
    """The second hidden node feeds nothing that counts."""
    net = LayeredNet((np.array([[0.0, 1, 0], [0, 0, 1]]), np.array([[0.0, 2, 0.5]])))

    assert [gate.signal for gate in read_circuit(net).gates] == [(1, 0), (2, 0)]


def test_functions_too_large_to_write_are_refused_by_name(make_ctx):
    """Thirty-two weights of like size: no gate. The record says so; nothing is cut short."""
    net = LayeredNet((np.random.default_rng(0).normal(size=(1, 33)),))
    ctx = make_ctx(steps=1)

    with pytest.raises(TooWide, match="node 0 of layer 1"):
        read_circuit(net)
    save_circuit(ctx, net)
    assert ctx.diagnostics["circuit"].startswith("not written: node 0 of layer 1")
    assert ctx.blobs == []


def test_circuits_too_large_together_are_refused_too(make_ctx):
    """Forty nodes of 13 inputs of like size: each can be written, all of them would not be read."""
    majority = LayeredNet((np.ones((40, 14)) - np.eye(1, 14),))

    assert read_gate((1, 0), majority.weights[0][0].tolist()).kind == "threshold"
    with pytest.raises(TooWide, match="layers 1 to 1 are ors of more than 10000 ands together"):
        read_circuit(majority)


def test_a_solved_search_leaves_a_circuit_that_multiplies(make_ctx):
    """End to end: the artefacts of a trial, read back as text, give all products; the drawing is an image with every gate."""
    for seed in range(20):
        ctx = make_ctx(seed=seed, steps=10_000)
        try:
            solve(load_multiplier(MultiplierParams(), None).problem, ctx, RRRParams(beta=0.5))
            break
        except BudgetSpent:
            continue

    files = {blob["name"]: Path(blob["path"]).read_text() for blob in ctx.blobs}
    table = multiplier_table(2)
    for run, name in ((run_verilog, "circuit.v"), (run_blif, "circuit.blif")):
        np.testing.assert_array_equal(run(files[name], table.inputs > 0), table.outputs > 0)
    drawing = ElementTree.fromstring(files["circuit.svg"])
    boxes = [shape for shape in drawing if shape.tag.endswith("rect") and shape.get("rx")]
    assert len(boxes) == files["circuit.v"].count("assign") + 4
    assert ctx.diagnostics["circuit"].startswith(f"{len(boxes) - 4} gates: ")


def test_a_drawing_is_the_same_whenever_it_is_made():
    """It is named by its content: the same net must not fill a registry with copies."""
    rng = np.random.default_rng(5)
    net = LayeredNet((rng.normal(size=(3, 5)), rng.normal(size=(2, 4))))

    assert to_svg(read_circuit(net)) == to_svg(read_circuit(net))
