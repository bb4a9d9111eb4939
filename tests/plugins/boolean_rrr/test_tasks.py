"""The tables against arithmetic written differently, bad input, and scores that read the weights and not the method's word."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
from harness_papers.boolean_rrr import (
    TASKS,
    AutoencoderParams,
    BooleanDigitsParams,
    MultiplierParams,
    RandomLogicParams,
    Rule30Params,
    TruthTableParams,
    tasks,
)
from harness_papers.boolean_rrr.problem import BooleanNet, BooleanProblem, LayeredNet, ProblemError, Table, as_bits, inference
from harness_papers.boolean_rrr.scoring import class_share, gate_share, margin, score, score_classes
from harness_papers.boolean_rrr.tasks import (
    load_autoencoder,
    load_boolean_digits,
    load_multiplier,
    load_random_logic,
    load_rule30,
    load_truth_table,
    multiplier_table,
    random_circuit,
    rule30,
)
from pydantic import ValidationError

from harness.errors import Invalid

# y1 = OR, y2 = AND of the inputs, bias first; then exclusive or = y1 and not y2. All weights on the margin for sigma = 3.
XOR = (np.array([[-1.0, 1, 1], [1, 1, 1]]), np.array([[1.0, 1, -1]]))
BOTH = np.array(list(itertools.product([-1, 1], repeat=2)), dtype=np.int8)


@pytest.fixture
def xor_table() -> Table:
    return Table(BOTH, as_bits(BOTH[:, :1] != BOTH[:, 1:], "outputs"))


def number(bits: np.ndarray) -> int:
    """Bits -1 / +1, most significant first, as an integer."""
    return int("".join("1" if bit > 0 else "0" for bit in bits), 2)


# Tables -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 3])
def test_the_multiplier_table_holds_every_product(bits):
    """Read back as integers: all pairs once, each with its product."""
    table = multiplier_table(bits)

    read = [(number(i[:bits]), number(i[bits:]), number(o)) for i, o in zip(table.inputs, table.outputs, strict=True)]

    assert sorted(read) == [(a, b, a * b) for a in range(2**bits) for b in range(2**bits)]


def test_rule_30_follows_its_number():
    """Neighbourhood (left, self, right) read as a number n: the new cell is bit n of 30."""
    worlds = np.array(list(itertools.product([0, 1], repeat=6)))

    got = rule30(worlds)

    for world, new in zip(worlds, got, strict=True):
        for cell in range(6):
            n = 4 * world[cell - 1] + 2 * world[cell] + world[(cell + 1) % 6]
            assert new[cell] == 30 >> n & 1


def test_rule_30_is_judged_on_worlds_that_were_not_learnt_from(make_ctx):
    """Train and test worlds are all different, and the seed decides which they are."""
    params = Rule30Params(n_train=64, n_test=200)
    problem, held = load_rule30(params, make_ctx(stage="load"))
    other, _ = load_rule30(params, make_ctx(seed=1, stage="load"))

    worlds = {tuple(world) for table in (problem.table, held["test"].test) for world in table.inputs.tolist()}
    assert len(worlds) == 264
    assert (problem.table.inputs != other.table.inputs).any()
    np.testing.assert_array_equal(held["test"].test.outputs > 0, rule30(held["test"].test.inputs > 0))


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_autoencoder_vectors_are_all_different(bits, make_ctx):
    """With two equal vectors the narrow layer would have a code to spare, and the task would be easier."""
    problem, _ = load_autoencoder(AutoencoderParams(bits=bits), make_ctx(stage="load"))

    assert len({tuple(vector) for vector in problem.table.inputs.tolist()}) == bits
    np.testing.assert_array_equal(problem.table.inputs, problem.table.outputs)
    assert problem.widths[0] == bits
    assert 2 ** problem.widths[1] >= bits


def test_two_steps_of_rule_30_are_one_step_twice(make_ctx):
    """And the net is the deeper one of the authors' page."""
    problem, held = load_rule30(Rule30Params(steps=2, n_train=8, n_test=8), make_ctx(stage="load"))

    assert problem.widths == (16, 48, 48, 48, 16)
    for table in (problem.table, held["test"].test):
        np.testing.assert_array_equal(table.outputs > 0, rule30(rule30(table.inputs > 0)))


def test_the_encoder_has_a_layer_of_its_own_where_asked(make_ctx):
    """16-16-4-16-16 is what the authors' page measures."""
    problem, _ = load_autoencoder(AutoencoderParams(bits=16, encoder=True), make_ctx(stage="load"))

    assert problem.widths == (16, 16, 4, 16, 16)


@pytest.mark.parametrize(("gates", "arity"), [("and-or", 3), ("majority", 3)])
def test_a_random_circuit_is_half_gates_and_half_copies_and_loses_few_values(gates, arity):
    """An AND or OR is a majority with the bias source; a copy has one input and no bias. All weights are -1, 0 or 1."""
    circuit = random_circuit(np.random.default_rng(1), 200, gates)

    rows = np.concatenate(circuit.weights)
    used = (rows != 0).sum(axis=1)
    assert set(np.unique(used)) == {1, arity}
    assert set(np.unique(rows)) == {-1, 0, 1}
    assert ((rows[:, 0] != 0) == ((used == arity) & (gates == "and-or"))).all()
    assert 0.47 < (used == arity).mean() < 0.53  # 6,400 nodes at one half: 4.8 standard deviations
    lost = np.mean([(weights[:, 1:] == 0).all(axis=0).mean() for weights in circuit.weights])
    assert lost < 0.05


def test_random_logic_is_judged_on_values_of_the_same_circuit(make_ctx):
    """The seed decides the circuit; a net with its weights gives train and test alike."""
    params = RandomLogicParams(depth=2, n_train=50, n_test=70, gates="majority")
    problem, held = load_random_logic(params, make_ctx(stage="load"))
    circuit = random_circuit(make_ctx(stage="load").rng("data"), 2, "majority")

    assert problem.widths == (32, 32, 32)
    assert score(held["test"], circuit, None, None)["test_bits"] == 1.0
    assert len(held["test"].test.inputs) == 70
    assert len({tuple(row) for row in problem.table.inputs.tolist()}) == 50


@pytest.mark.parametrize("ink", ["grey", "binary"])
def test_digits_have_one_output_bit_on_and_inputs_in_the_range_of_bits(ink, make_ctx):
    """Grey is analog, as the authors give it; binary has bits. Train and test together are all digits."""
    problem, held = load_boolean_digits(BooleanDigitsParams(n_train=100, ink=ink), make_ctx(stage="load"))

    table, test = problem.table, held["test"].test
    assert (problem.widths, problem.sigma, problem.gapstop) == ((64, 64, 10), 5.0, 0.05)
    assert len(table.inputs) + len(test.inputs) == 1797
    assert ((table.outputs > 0).sum(axis=1) == 1).all()
    assert problem.analog is (ink == "grey")
    assert np.abs(table.inputs).max() == 1
    assert (len(np.unique(table.inputs)) > 2) is (ink == "grey")


def test_any_truth_table_becomes_a_problem():
    """Rows that are not written are free: the table may be partial."""
    problem, _ = load_truth_table(TruthTableParams(table="000:01 011:10 110:11", hidden="4-3"), None)

    assert problem.widths == (3, 4, 3, 2)
    assert [(number(i), number(o)) for i, o in zip(problem.table.inputs, problem.table.outputs, strict=True)] == [
        (0, 1),
        (3, 2),
        (6, 3),
    ]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("00:0 01:1 00:1", "input 00 has the outputs 0 and 1; no circuit gives both"),
        ("00:0 011:1", "the rows differ"),
        ("00:0 02:1", "is no truth table; write rows of bits in:out"),
        ("", "is no truth table"),
        ("00", "is no truth table"),
        (":0", "is no truth table"),
    ],
)
def test_tables_that_are_none_or_contradict_themselves_are_refused_when_the_suite_is_read(table, says):
    """Before anything runs; a contradiction is shown, as the certificate that no circuit exists."""
    with pytest.raises(ValidationError, match=says):
        TruthTableParams(table=table)


def test_hidden_layers_without_nodes_are_refused():
    """Fan-in 0."""
    for hidden in ("0", "4-0", "", "4x4"):
        with pytest.raises(ValidationError):
            TruthTableParams(hidden=hidden)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_each_task_has_the_shape_that_it_declares(task, make_ctx):
    """`match` and the plan trust the declared sizes without loading."""
    load = getattr(tasks, task.load.rpartition(":")[2])
    params = task.params()

    problem = load(params, make_ctx(stage="load")).problem

    assert task.shape(params) == {
        "inputs": problem.table.inputs.shape[1],
        "outputs": problem.table.outputs.shape[1],
        "train_items": problem.items,
    }


def test_what_is_held_survives_pickling(make_ctx):
    """The worker seals it as bytes."""
    held = load_multiplier(MultiplierParams(), make_ctx(stage="load")).held["test"]

    again = pickle.loads(pickle.dumps(held))

    np.testing.assert_array_equal(again.train.outputs, held.train.outputs)
    assert again.widths == held.widths


# Bad input --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([[0, 1], [2, 0]], r"labels: holds \[2\]"),
        ([[0, 1], [-1, 0]], r"labels: holds \[-1, 0\]"),
        ([[0.5, 1.0]], r"labels: holds \[0.5\]"),
        ([[float("nan"), 1.0]], r"labels: holds \[nan\]"),
        ([0, 1], r"labels: shape \(2,\)"),
    ],
)
def test_labels_that_are_no_bits_are_refused(values, says):
    """Neither coding, both codings mixed, fractions, NaN, or one axis too few."""
    with pytest.raises(ProblemError, match=says):
        as_bits(values, "labels")


def test_both_codings_of_bits_mean_the_same():
    """0 / 1 and -1 / +1, booleans included, become -1 / +1."""
    for coded in ([[0, 1, 1]], [[-1, 1, 1]], [[False, True, True]]):
        np.testing.assert_array_equal(as_bits(coded, "bits"), np.array([[-1, 1, 1]], dtype=np.int8))


def test_one_input_with_two_outputs_is_refused_with_both_items():
    """No circuit exists; the search would only spend its budget."""
    inputs = as_bits([[0, 1], [1, 1], [0, 1]], "inputs")

    with pytest.raises(ProblemError, match="items 0 and 2 have one input and two outputs"):
        Table(inputs, as_bits([[0], [1], [1]], "outputs"))
    Table(inputs, as_bits([[0], [1], [0]], "outputs"))  # the same item twice is no contradiction


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"widths": (2, 0, 1)}, "layer 1 has 0 nodes, so layer 2 would have fan-in 0"),
        ({"widths": (2, 3, 0)}, "the net would have no output"),
        ({"widths": (2,)}, "at least the input and the output layer"),
        ({"widths": (3, 1)}, r"the ends must be \(2, 1\)"),
        ({"sigma": 0.0}, "must be positive"),
        ({"gapstop": -1.0}, "must be positive"),
    ],
)
def test_nets_that_cannot_be_are_refused(change, says, xor_table):
    """Fan-in 0, missing layers, ends that do not fit the data."""
    problem = BooleanProblem(xor_table, (2, 2, 1))

    with pytest.raises(ProblemError, match=says):
        replace(problem, **change)


def test_tables_of_unequal_length_or_without_items_are_refused():
    """One output row an input row."""
    with pytest.raises(ProblemError, match="4 inputs, 3 outputs"):
        Table(BOTH, BOTH[:3])
    with pytest.raises(ProblemError, match="0 inputs"):
        Table(BOTH[:0], BOTH[:0])
    with pytest.raises(ProblemError, match="as_bits"):
        Table(BOTH, np.zeros((4, 1), dtype=np.int8))
    for wrong in (1.5, np.nan):
        with pytest.raises(ProblemError, match=r"not all in \[-1, 1\]"):
            Table(np.array([[0.5, wrong]]), BOTH[:1, :1])


# Scores -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Boaster:
    """Answers by heart and brings whatever weights."""

    weights: tuple[np.ndarray, ...]
    answers: np.ndarray

    def predict(self, bits: np.ndarray) -> np.ndarray:
        return self.answers


def held_of(table: Table, widths: tuple[int, ...]):
    return tasks.instance(BooleanProblem(table, widths), table).held["test"]


def test_a_right_circuit_gets_full_marks(xor_table):
    """The hand-made circuit lies on the margin, and all its nodes are gates."""
    got = score(held_of(xor_table, (2, 2, 1)), LayeredNet(XOR), None, None)

    assert got == {
        "solved": 1.0,
        "circuit_solved": 1.0,
        "train_bits": 1.0,
        "test_bits": 1.0,
        "gate_share": 1.0,
        "margin": pytest.approx(1.0, abs=1e-14),
    }


def test_answers_by_heart_do_not_make_a_circuit(xor_table):
    """`solved` is the method's own forward pass; the weights are run by the scorer."""
    wrong = (XOR[0], -XOR[1])

    got = score(held_of(xor_table, (2, 2, 1)), Boaster(wrong, xor_table.outputs), None, None)

    assert (got["solved"], got["circuit_solved"], got["margin"]) == (1.0, 0.0, 0.0)


def test_bits_count_one_by_one(xor_table):
    """One wrong answer of four."""
    answers = xor_table.outputs.copy()
    answers[0] *= -1

    got = score(held_of(xor_table, (2, 2, 1)), Boaster(XOR, answers), None, None)

    assert (got["solved"], got["train_bits"], got["test_bits"]) == (0.0, 0.75, 0.75)


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (LayeredNet((XOR[0], XOR[1][:, :2])), r"weights have shapes \[\(2, 3\), \(1, 2\)\]"),
        (LayeredNet((XOR[0] * np.inf, XOR[1])), "not all finite"),
        (Boaster(XOR, np.zeros((4, 1))), "predict gave shape"),
        (Boaster(XOR, np.ones((3, 1))), "predict gave shape"),
    ],
)
def test_what_is_no_net_of_the_task_is_invalid(net, says, xor_table):
    """A smaller or broken answer must not be scored at all."""
    with pytest.raises(Invalid, match=says):
        score(held_of(xor_table, (2, 2, 1)), net, None, None)


@dataclass(frozen=True)
class Answers:
    """Says what it was given, whatever is asked."""

    answers: np.ndarray

    def predict(self, bits: np.ndarray) -> np.ndarray:
        return self.answers


def test_class_share_is_the_authors_accuracy():
    """The right class's bit alone: 1; with one other: 1/2; off, or none on: 0."""
    table = Table(BOTH, as_bits(np.eye(4, 3, dtype=int), "outputs"))
    answers = as_bits([[1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0]], "answers")

    assert class_share(Answers(answers), table) == (1 + 1 / 2 + 0 + 0) / 4


def test_digits_are_scored_as_bits_and_as_classes(make_ctx):
    """The metric stands beside the others."""
    problem, held = load_boolean_digits(BooleanDigitsParams(), make_ctx(stage="load"))
    net = LayeredNet(tuple(np.ones((after, 1 + before)) for before, after in itertools.pairwise(problem.widths)))

    got = score_classes(held["test"], net, None, None)

    assert set(got) == {metric.name for task in TASKS if task.name == "boolean-digits" for metric in task.metrics}


def test_gate_share_reads_the_fourth_weight_against_the_third():
    """Below a tenth is a gate; a node of at most three inputs is one; a plain copy too, if the rest is exactly 0."""
    rows = np.array([[1, -1, 1, 0.09], [1, -1, 1, 0.11], [0, 2, 0, 0], [1, 1, 0.01, 0.01]])

    assert gate_share((rows,)) == 0.5
    assert gate_share((rows[:, :3],)) == 1.0


def test_margin_has_no_scale_and_is_zero_without_weights_or_with_a_wrong_bit(xor_table):
    """Weights are compared at |w|^2 = fan-in; a dead node has no margin."""
    assert margin(LayeredNet((7 * XOR[0], 0.1 * XOR[1])), xor_table, 3.0) == pytest.approx(1, abs=1e-14)
    assert margin(LayeredNet((XOR[0] * 0, XOR[1])), xor_table, 3.0) == 0
    assert margin(LayeredNet((XOR[0], -XOR[1])), xor_table, 3.0) == 0


def test_a_net_meets_the_tracks_protocol_and_can_be_timed(xor_table):
    """The worker checks the protocol at run time and times what `inference` returns."""
    net = LayeredNet(XOR)

    assert isinstance(net, BooleanNet)
    np.testing.assert_array_equal(inference(net, BooleanProblem(xor_table, (2, 2, 1)), None)(), xor_table.outputs)


@pytest.mark.parametrize(("activation", "function"), [("relu", lambda z: max(z, 0.0)), ("tanh", np.tanh)])
def test_analog_nets_use_their_activation_and_the_bias_source(activation, function):
    """Written out for one item: column 0 multiplies -1."""
    net = LayeredNet((np.array([[0.5, 2.0, -1.0]]), np.array([[0.1, 3.0]])), activation)

    z = net.pre_activations(np.array([[1, -1]], dtype=np.int8))

    assert z[0].item() == pytest.approx(-0.5 + 2 + 1)
    assert z[1].item() == pytest.approx(-0.1 + 3 * function(2.5))
