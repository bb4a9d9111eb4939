"""The projections and the search against hand examples, golden values, the paper's invariants and a loop over single edges."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from harness_papers.boolean_rrr import MultiplierParams
from harness_papers.boolean_rrr.method import Search, move_to_surface, nearest_gate, rotate, solve_shift
from harness_papers.boolean_rrr.problem import BooleanProblem, LayeredNet, Table, as_bits
from harness_papers.boolean_rrr.scoring import margin
from harness_papers.boolean_rrr.start import Settings, Start, draw_start, input_values
from harness_papers.boolean_rrr.tasks import load_multiplier, multiplier_table

from harness.errors import Diverged

from .oracle import Oracle, project_gate

GOLDEN_W = np.array([0.5, -0.2, 0.9, 0.1, -0.7])
GOLDEN_X = np.array([1, -0.3, -0.8, 0.4, 0.6])
GOLDEN_DELTA = float(np.sqrt(5 / 3))


@pytest.fixture
def rng() -> np.random.Generator:
    """The one source of randomness of a test here: NumPy's, like the method's."""
    return np.random.default_rng(20260217)


@pytest.fixture
def and_problem() -> BooleanProblem:
    """Both inputs 1: one threshold function with weights 1, 1, 1 on (bias, first, second), exactly on the margin."""
    inputs = np.array(list(itertools.product([0, 1], repeat=2)))
    return BooleanProblem(Table(as_bits(inputs, "inputs"), as_bits(inputs.min(axis=1, keepdims=True), "outputs")), (2, 1))


def multiplier() -> BooleanProblem:
    return load_multiplier(MultiplierParams(), None).problem


def search_of(problem: BooleanProblem, beta: float = 0.2, gamma: float = 1e-3, seed: int = 1) -> Search:
    return Search(problem, Settings(problem.sigma, beta, gamma), [draw_start(problem, np.random.default_rng(seed))])


def shift_of(near: np.ndarray, far: np.ndarray, delta: float) -> np.ndarray:
    return solve_shift(torch.as_tensor(near), torch.as_tensor(far), delta).numpy()


def move(w: np.ndarray, x: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray, float]:
    w2, x2, u = move_to_surface(torch.as_tensor(w), torch.as_tensor(x), c)
    return w2.numpy(), x2.numpy(), u


def edges_of(w: np.ndarray, x: np.ndarray) -> torch.Tensor:
    """One search, one node, one item, out of weights and inputs (m,)."""
    return torch.stack(rotate(torch.as_tensor(w), torch.as_tensor(x)))[None, :, None, :, None]


def parts_of(edges: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Weights and inputs (n, m, I) of the first search in a layer."""
    w, x = rotate(edges[0, 0], edges[0, 1])
    return w.numpy(), x.numpy()


def gate(w: np.ndarray, x: np.ndarray, y: float, delta: float) -> tuple[np.ndarray, np.ndarray, float]:
    """`nearest_gate` for one node and one item, in the coordinates (w, x)."""
    edges = edges_of(w, x)
    factors, value = nearest_gate(edges, torch.tensor([[[y]]], dtype=torch.float64), delta)
    moved = parts_of(edges * factors[:, :, :, None])
    return moved[0][0, :, 0], moved[1][0, :, 0], value.item()


# The move to the surface w.x = c ----------------------------------------------------------------------------------------


def test_three_steps_find_the_root_for_every_input():
    """No branch, no tolerance: the fixed number of steps must do over the whole unit square that all inputs come down to."""
    k, share = np.meshgrid(np.linspace(0, 1, 1001)[1:], np.linspace(0, 1, 1001)[:-1])
    delta = 1 - share  # then delta + far = 1, near = k^2

    v = solve_shift(*(torch.as_tensor(part) for part in (np.square(k), share)), torch.as_tensor(delta)).numpy()

    # Not divided by (1 - v)^2, which would only magnify rounding; and nothing moves where near - far >= delta.
    residual = (1 - v) * np.sqrt(delta + share / np.square(1 + v)) - k
    inside = np.square(k) - share < delta
    assert np.abs(residual[inside]).max() < 1e-14  # about 20 units of rounding of the numbers compared
    assert (v[~inside] == 0).all()
    assert (v >= 0).all()
    assert (v < 1).all()


def test_the_root_is_found_in_float32_too(rng):
    """A suite may ask for float32; its root must be right to float32's rounding."""
    near, far = (rng.uniform(0.1, 5, 1000) for _ in range(2))

    single = shift_of(near.astype(np.float32), far.astype(np.float32), 1.3)

    assert single.dtype == np.float32
    np.testing.assert_allclose(single, shift_of(near, far, 1.3), atol=2e-6)  # a dozen units of float32's rounding


def test_the_moved_point_lies_on_the_surface_along_its_normal(rng):
    """w'.x' = c, and (w' - w, x' - x) = u (x', w'): the conditions of a nearest point."""
    for _ in range(200):
        w, x = rng.normal(size=(2, 7))
        c = float((abs(w @ x) + rng.uniform(0.01, 5)) * rng.choice([-1, 1]))

        w2, x2, u = move(w, x, c)

        assert w2 @ x2 == pytest.approx(c, abs=1e-10)
        np.testing.assert_allclose(w2 - w, u * x2, atol=1e-10)
        np.testing.assert_allclose(x2 - x, u * w2, atol=1e-10)


def test_hand_example_of_equal_vectors():
    """w = x = (1, 1, 1), c = 12: u = 1 - sqrt(3 / 12) = 1/2, so both double."""
    w2, x2, u = move(np.ones(3), np.ones(3), 12.0)

    assert u == pytest.approx(0.5, abs=1e-14)
    np.testing.assert_allclose(np.stack([w2, x2]), 2.0, atol=1e-13)


@pytest.mark.parametrize("c", [3.5, 12.0, 300.0])
def test_equal_vectors_have_the_closed_form(c):
    """For w = x, u = 1 - sqrt(m / c) with m = |w|^2."""
    assert move(np.ones(3), np.ones(3), c)[2] == pytest.approx(1 - np.sqrt(3 / c), abs=1e-14)


@pytest.mark.parametrize(
    ("sign", "u", "distance2"),
    [(1, 0.399481, 0.813750), (-1, -0.171502, 0.135310)],
)
def test_golden_moves_of_the_card(sign, u, distance2):
    """Both candidates of one example, from a float64 bisection; six digits are given."""
    w2, x2, got = move(GOLDEN_W, GOLDEN_X, sign * GOLDEN_DELTA)

    assert got == pytest.approx(u, abs=1e-6)
    assert ((w2 - GOLDEN_W) ** 2).sum() + ((x2 - GOLDEN_X) ** 2).sum() == pytest.approx(distance2, abs=1e-6)
    if sign < 0:
        np.testing.assert_allclose(w2, [0.338453, -0.153051, 1.068634, 0.032351, -0.827233], atol=1e-6)
        np.testing.assert_allclose(x2, [0.941955, -0.273751, -0.983273, 0.394452, 0.741872], atol=1e-6)


@pytest.mark.parametrize(
    ("w", "x", "c", "says"),
    [
        ([1, 1], [-1, -1], 1.0, "equally near"),
        ([1, 1], [1, 1], -1.0, "equally near"),
        ([2, 2], [2, 2], 1.0, "not inside"),
        ([1, 0], [0, 1], 0.0, "not inside"),
    ],
)
def test_moves_without_one_nearest_point_are_refused(w, x, c, says):
    """Where w = -x every direction is as good: no number is better than a made-up one."""
    with pytest.raises(ValueError, match=says):
        move(np.array(w, float), np.array(x, float), c)


# Projection to A --------------------------------------------------------------------------------------------------------


def test_golden_choice_of_the_card():
    """With y = .2 the value +1 costs .64 + .813750, the value -1 costs 1.44 + .135310: +1 is nearer."""
    w2, x2, y2 = gate(GOLDEN_W, GOLDEN_X, 0.2, GOLDEN_DELTA)

    assert y2 == 1
    assert w2 @ x2 == pytest.approx(GOLDEN_DELTA, abs=1e-10)


def test_a_point_beyond_the_margin_keeps_its_weights_and_inputs_to_the_bit():
    """y (w.x) >= delta holds already; only y is rounded."""
    w, x = np.array([1.0, -1.0, 0.5]), np.array([1.0, 2.0, 0.5])
    assert w @ x < -0.5

    factors, value = nearest_gate(edges_of(w, x), torch.tensor([[[-0.3]]], dtype=torch.float64), 0.5)

    assert (factors == 1).all()
    assert value == -1


def test_each_node_is_projected_as_the_description_says(rng):
    """Both cases of the description, bisection and explicit costs, against the rotated form without cases."""
    for _ in range(300):
        m = int(rng.integers(2, 9))
        w, x, y = rng.normal(size=m), rng.normal(size=m), float(rng.normal())
        delta = float(rng.uniform(0.1, 3))

        got, expected = gate(w, x, y, delta), project_gate(w, x, y, delta)

        assert got[2] == expected[2]
        np.testing.assert_allclose(got[0], expected[0], atol=1e-10)  # as exact as the bisection
        np.testing.assert_allclose(got[1], expected[1], atol=1e-10)


def test_projection_to_a_is_idempotent():
    """A projected point is in the set, so projecting again leaves it."""
    search = search_of(multiplier())
    once = search.project_a(search.edges, search.nodes)

    twice = search.project_a(*once)

    for again, first in zip(twice[0], once[0], strict=True):
        np.testing.assert_allclose(again, first, atol=1e-10)
    np.testing.assert_array_equal(twice[1], once[1])


# Projection to B --------------------------------------------------------------------------------------------------------


def moved_search(problem: BooleanProblem) -> Search:
    """A search after some steps, so that the metric weights differ from 1."""
    search = search_of(problem, gamma=0.1)
    for _ in range(5):
        search.step()
    assert np.ptp(search.metric.numpy()) > 0.1
    return search


@pytest.mark.parametrize("widths", [(4, 4, 4, 4), (4, 2, 5, 4)])
def test_after_concur_all_items_agree_and_weights_have_mean_square_one(widths):
    """What B means; also with layers of different fan-in."""
    search = moved_search(BooleanProblem(multiplier_table(2), widths))

    edges, nodes, weights = search.project_b(search.edges, search.nodes)

    for layer, agreed, before in zip(edges, weights, search.layers, strict=False):
        w, x = parts_of(layer)
        np.testing.assert_allclose(w, np.broadcast_to(agreed[0][:, :, None], w.shape), atol=1e-12)
        np.testing.assert_allclose(agreed[0].square().mean(dim=1), 1, atol=1e-12)
        feeding = torch.cat([nodes[0, :1], nodes[0, before]])
        np.testing.assert_allclose(x, np.broadcast_to(feeding[None], x.shape), atol=1e-12)
    np.testing.assert_array_equal(nodes[:, -widths[-1] :], search.labels)


def test_projection_to_b_is_idempotent():
    """For a fixed metric a projected point is in the set already."""
    search = moved_search(multiplier())
    once = search.project_b(search.edges, search.nodes)

    twice = search.project_b(once[0], once[1])

    for again, first in zip(twice[0] + twice[2] + [twice[1]], once[0] + once[2] + [once[1]], strict=True):
        np.testing.assert_allclose(again, first, atol=1e-12)


def test_concur_is_the_nearest_agreeing_point_in_the_metric(rng):
    """Any other agreed value of a node is further away: checks the weighting without repeating its formula."""
    search = moved_search(multiplier())
    edges, nodes, _ = search.project_b(search.edges, search.nodes)
    feeding = search.layers[-1].start

    def distance2(moved_edges, moved_nodes):
        pairs = zip(moved_edges, search.edges, search.layers[1:], strict=True)
        on_edges = sum(((moved - v).square() * search.metric[:, None, part, None]).sum() for moved, v, part in pairs)
        return float(on_edges + ((moved_nodes - search.nodes).square() * search.metric)[:, :feeding].sum())

    best = distance2(edges, nodes)
    for node in range(feeding):
        step = 1e-3 * float(rng.choice([-1, 1]))
        moved_nodes, moved_edges = nodes.clone(), []
        moved_nodes[:, node] += step
        for layer, before in zip(edges, search.layers, strict=False):
            x = torch.zeros_like(layer[:, 0])
            slot = 0 if node == 0 else 1 + node - before.start
            if node == 0 or before.start <= node < before.stop:
                x[:, :, slot] = step
            moved_edges.append(layer + torch.stack(rotate(torch.zeros_like(x), x), dim=1))

        assert distance2(moved_edges, moved_nodes) > best


# The iteration ----------------------------------------------------------------------------------------------------------


def loop_of(problem: BooleanProblem, start: Start, beta: float, gamma: float) -> Oracle:
    """The loop over single edges from the same draw; its edges go node by node, slot by slot."""
    parts = [rotate(*torch.as_tensor(layer)) for layer in start.edges]
    w, x = (np.concatenate([part[k].reshape(-1, problem.items) for part in parts]).T for k in (0, 1))
    y = np.concatenate([input_values(problem), start.hidden, problem.table.outputs.T]).T
    return Oracle(problem.widths, problem.table.inputs, problem.table.outputs, problem.sigma, beta, gamma, w, x, y)


@pytest.mark.parametrize("widths", [(4, 4, 4, 4), (4, 2, 5, 4)])
def test_the_search_takes_the_steps_of_the_loop_over_edges(widths):
    """Twelve steps, the metric relaxing fast, layers of equal and of different fan-in, two searches side by side."""
    problem = BooleanProblem(multiplier_table(2), widths)
    starts = [draw_start(problem, np.random.default_rng(seed)) for seed in (1, 2)]
    search = Search(problem, Settings(3.0, 0.7, 0.05), starts)
    loops = [loop_of(problem, start, 0.7, 0.05) for start in starts]

    for _ in range(12):
        np.testing.assert_allclose(search.step(), [loop.step() for loop in loops], rtol=1e-9)  # rounding, amplified a little

    for number, loop in enumerate(loops):
        np.testing.assert_allclose(search.nodes[number].T, loop.y, atol=1e-9)
        np.testing.assert_allclose(search.metric[number].T, loop.g, atol=1e-9)


@pytest.mark.cuda
def test_the_search_takes_the_same_steps_on_cuda():
    """The same draw in float64; sums go in another order there."""
    problem = multiplier()
    starts = [draw_start(problem, np.random.default_rng(seed)) for seed in range(4)]
    here, there = (Search(problem, Settings(3.0, 0.2, 1e-3), starts, device=device) for device in ("cpu", "cuda"))

    for _ in range(30):
        np.testing.assert_allclose(there.step(), here.step(), rtol=1e-9)

    for got, expected in zip(there.weights(3), here.weights(3), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-9)


def test_a_solution_is_a_fixed_point(and_problem):
    """Where a = b the gap is 0 and nothing moves."""
    search = search_of(and_problem)
    x = torch.as_tensor(input_values(and_problem))[None, None]
    search.edges = [torch.stack(rotate(torch.ones_like(x), x), dim=1)]
    search.nodes = torch.cat([x[:, 0], torch.as_tensor(and_problem.table.outputs.T)[None]], dim=1)
    edges, nodes = search.edges[0].clone(), search.nodes.clone()

    gaps = search.step()

    assert gaps[0] < 1e-14
    np.testing.assert_allclose(search.edges[0], edges, atol=1e-14)
    np.testing.assert_allclose(search.nodes, nodes, atol=1e-14)


def test_numbers_that_overflow_end_as_diverged():
    """A gap that is no number must not run on to the end of the budget."""
    search = search_of(multiplier())
    search.nodes[0, 7, 0] = np.nan

    with pytest.raises(Diverged, match="gap"):
        search.step()


# Threshold functions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [3, 5, 9])
def test_three_equal_weights_lie_exactly_on_the_margin(m):
    """w = sqrt(m / 3) (1, 1, 1, 0, ...): majority, and AND or OR with the bias; a copy gate has margin sqrt(m)."""
    inputs = np.array(list(itertools.product([-1, 1], repeat=m - 1)), dtype=np.int8)
    majority = np.zeros((1, m))
    majority[0, :3] = np.sqrt(m / 3)
    copy = np.zeros((1, m))
    copy[0, 1] = np.sqrt(m)

    for weights, expected in ((majority, 1), (copy, np.sqrt(3))):
        net = LayeredNet((weights,))
        assert np.abs(net.pre_activations(inputs)[0]).min() == pytest.approx(expected * np.sqrt(m / 3), abs=1e-14)
        assert margin(net, Table(inputs, net.predict(inputs)), sigma=3.0) == pytest.approx(expected, abs=1e-14)


def test_turning_a_hidden_node_changes_no_output(rng):
    """A threshold function is odd, so flipping all its weights and all weights on its value cancels."""
    inputs = np.array(list(itertools.product([-1, 1], repeat=4)), dtype=np.int8)
    first, second = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    turned_first, turned_second = first.copy(), second.copy()
    turned_first[2] *= -1
    turned_second[:, 1 + 2] *= -1

    expected = LayeredNet((first, second)).predict(inputs)

    np.testing.assert_array_equal(LayeredNet((turned_first, turned_second)).predict(inputs), expected)
    assert (LayeredNet((turned_first, second)).predict(inputs) != expected).any()  # the net does use that node


def test_importing_the_declarations_loads_neither_torch_nor_numpy():
    """`harness list` asks every paper; loading and scoring a task need no torch either."""
    code = (
        "import sys, harness_papers.boolean_rrr as paper\n"
        "assert not {'torch', 'numpy'} & set(sys.modules), sorted(sys.modules)\n"
        "import harness_papers.boolean_rrr.tasks\n"
        "assert 'torch' not in sys.modules\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
