"""The base paper's recipe: it keeps its budget, refines without a jump, prunes what adds little, and names what it finds."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from harness_papers.kan.layers import KANLinear
from harness_papers.kan.pictures import look_at
from harness_papers.kan_assessment import KANFitParams, MLPFitParams
from harness_papers.kan_assessment.fitting import cost_kan, cost_mlp, prune, solve_kan, solve_mlp, sparsity
from harness_papers.kan_assessment.formulas import draw
from harness_papers.kan_assessment.graph import FUNCTIONS, MOST_EDGES, Edges, draw_graph, name_curve, name_edges
from harness_papers.kan_assessment.speed import measure_ratio, mlp_like
from torch import nn

from harness.lab import Regress, Unsupported

ITEMS = 200


class Notes:
    """A stand-in for ctx: it counts what is spent and keeps what is offered and saved."""

    def __init__(self, start: int = 0, **budget: float) -> None:
        self.start = start
        self.budget, self.spent = budget, {"samples_seen": 0.0, "steps": 0.0}
        self.device, self.dtype = torch.device("cpu"), torch.float64
        self.offers: list[float] = []
        self.saved: dict[str, bytes] = {}
        self.logged: dict[str, float] = {}
        self.problem: Regress | None = None

    def spend(self, **amounts: float) -> None:
        for unit, amount in amounts.items():
            self.spent[unit] += amount
            assert self.spent[unit] <= self.budget.get(unit, math.inf)

    def left(self, unit: str) -> float:
        return self.budget[unit] - self.spent[unit]

    def region(self, name: str):
        return contextlib.nullcontext()

    def generator(self, stream: str) -> torch.Generator:
        return torch.Generator().manual_seed(sum(stream.encode()) + self.start)

    def offer(self, solution) -> None:
        self.offers.append(float((solution.predict(self.problem.x) - self.problem.y).square().mean().sqrt()))

    def save(self, name: str, content: bytes, media_type: str) -> None:
        self.saved[name] = content

    @property
    def blobs(self) -> list[dict[str, str]]:
        return [{"name": name} for name in self.saved]

    def log(self, **values: float) -> None:
        self.logged |= values


def fit(solve, params, formula: str = "exp-sine", start: int = 0, **budget: float):
    x, y = draw(formula, np.random.default_rng(0), ITEMS)
    ctx = Notes(start, **budget)
    ctx.problem = Regress(torch.from_numpy(x), torch.from_numpy((y - y.mean()) / y.std())[:, None], (x.shape[1],), 1)
    return solve(ctx.problem, ctx, params), ctx


@pytest.mark.parametrize(("solve", "params"), [(solve_kan, KANFitParams()), (solve_mlp, MLPFitParams(width=8))])
def test_chance_is_the_trials_own(solve, params):
    """What a layer draws when it is made would come from torch's global generator."""
    before = torch.random.get_rng_state()

    fit(solve, params, steps=2)

    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("budget", [{"samples_seen": 300.0 * ITEMS}, {"steps": 300.0}])
@pytest.mark.parametrize(("solve", "params"), [(solve_kan, KANFitParams()), (solve_mlp, MLPFitParams(width=8))])
def test_evaluations_are_paid_for_and_most_of_the_budget_is_used(solve, params, budget):
    """The stand-in refuses to be overdrawn; a search that could be is not begun."""
    _, ctx = fit(solve, params, **budget)

    unit, whole = next(iter(budget.items()))
    assert 0.8 * whole < ctx.spent[unit] <= whole
    assert ctx.spent["samples_seen"] == ITEMS * ctx.spent["steps"]
    assert ctx.offers[-1] < 0.2  # the mean scores 1


def test_a_budget_of_seconds_alone_is_refused():
    """Both learners must have as many evaluations."""
    with pytest.raises(Unsupported, match="set samples_seen or steps"):
        fit(solve_mlp, MLPFitParams(), wall_s=1.0)


def test_each_stage_is_no_worse_than_the_last():
    """A finer grid begins where the coarser one ended: the error on the train points goes down."""
    solution, ctx = fit(solve_kan, KANFitParams(grids="3-6-12"), steps=400.0)

    assert len(ctx.offers) == 3
    assert all(later <= earlier for earlier, later in itertools.pairwise(ctx.offers))
    assert {layer.grid.intervals for layer in solution.module} == {12}


def test_a_sparse_fit_finds_the_formula():
    """exp(sin(pi a) + b^2): one unit is left, and its three edges are a sine, a square and an exponential.

    From this start: of four that were tried two ended so, and in two a second unit stayed.
    """
    solution, ctx = fit(solve_kan, KANFitParams(sparsity=0.01, prune=0.05), start=1, steps=900.0)
    edges = json.loads(ctx.saved["edges.json"])

    assert ctx.logged["units_pruned"] == 4
    assert [layer.out_features for layer in solution.module] == [1, 1]
    assert [(edge["layer"], edge["from"], edge["function"]) for edge in edges] == [(1, 1, "sin"), (1, 2, "x^2"), (2, 1, "exp")]
    assert min(edge["r2"] for edge in edges) > 0.999
    assert set(ctx.saved) == {"graph-first.svg", "graph.svg", "edges.json", "edge-functions.svg"}


def test_what_a_net_costs_is_counted_on_its_finest_grid():
    """15 edges of 12 + 3 coefficients and a base; an MLP 2-64-64-1."""
    shape = {"inputs": 2, "outputs": 1, "train_items": 1000}

    assert cost_kan(shape, KANFitParams())["params"] == 15 * 16
    assert cost_mlp(shape, MLPFitParams())["params"] == 2 * 64 + 64 + 64 * 64 + 64 + 65
    assert cost_kan(shape, KANFitParams())["flops"] > 0


# Edges ------------------------------------------------------------------------------------------------------------------


def small_kan(rng: torch.Generator) -> nn.Sequential:
    net = nn.Sequential(KANLinear(2, 4, scaler=False), KANLinear(4, 1, scaler=False)).double()
    for layer in net:
        layer.reset(rng)
    return net


def test_pruning_drops_the_units_that_add_nothing_and_keeps_the_function(rng):
    """One unit has no way in, one no way out."""
    net = small_kan(rng)
    with torch.no_grad():
        for weight in (net[0].base_weight, net[0].spline_weight):
            weight[1] = 0
        for weight in (net[1].base_weight, net[1].spline_weight):
            weight[:, 3] = 0
    x = torch.rand(50, 2, generator=rng, dtype=torch.float64) * 2 - 1
    rest = net[1].curves(net[0](x))[:, :, 1].detach()  # the deaf unit still adds a constant

    small = prune(net, x, 1e-3)

    assert [layer.out_features for layer in small] == [2, 1]
    torch.testing.assert_close(small(x) + rest, net(x), atol=1e-12, rtol=0)  # float64


def test_one_unit_always_stays(rng):
    """A threshold that all miss leaves the strongest."""
    x = torch.rand(50, 2, generator=rng, dtype=torch.float64)

    assert prune(small_kan(rng), x, 0.99999)[0].out_features >= 1


def test_sparsity_prefers_few_large_edges(rng):
    """Of two nets with edges of the same total size the one with fewer has the smaller penalty; it has a gradient."""
    spread, few = (nn.Sequential(KANLinear(2, 2, scaler=False)).double() for _ in range(2))
    with torch.no_grad():
        for net, weights in ((spread, [[1.0, 1.0], [1.0, 1.0]]), (few, [[4.0, 0.0], [0.0, 0.0]])):
            net[0].spline_weight.zero_()
            net[0].base_weight.copy_(torch.tensor(weights))
    x = torch.ones(5, 2, dtype=torch.float64)

    penalty = sparsity(spread, x)
    penalty.backward()

    assert float(sparsity(few, x).detach()) < float(penalty.detach())
    assert bool(spread[0].base_weight.grad.isfinite().all())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_named_function_is_named(name):
    """Stretched and moved, where it is defined; or by a simpler one that is as near."""
    x = np.linspace(-1, 1, 150)
    y = 3 * FUNCTIONS[name](0.7 * x + 1.5) - 2
    named = name_curve(x, y)
    names = list(FUNCTIONS)

    assert named["r2"] > 0.999
    assert names.index(named["function"]) <= names.index(name)
    again = named["c"] * FUNCTIONS[named["function"]](named["a"] * x + named["b"]) + named["d"]
    assert np.abs(again - y).max() < 0.2 * np.ptp(y)


def test_a_constant_and_a_curve_of_no_name():
    """The first has a name of its own, the second the nearest one with an honest R^2."""
    x = np.linspace(-1, 1, 150)

    assert name_curve(x, np.full(150, 2.0))["function"] == "constant"
    assert name_curve(x, np.sin(5 * x) * np.sin(23 * x))["r2"] < 0.9


def test_the_picture_is_svg_with_a_curve_for_each_edge(rng):
    """Well formed; of a large net the strongest edges only, and it says so."""
    net = small_kan(rng)
    x = torch.rand(30, 2, generator=rng, dtype=torch.float64)
    wide = [Edges(np.zeros((5, 40)), np.random.default_rng(0).normal(size=(5, 10, 40)))]

    picture, large = draw_graph(look_at(net, x, len(x))), draw_graph(wide)

    space = "{http://www.w3.org/2000/svg}"
    assert len(ElementTree.fromstring(picture).findall(f"{space}g")) == 12
    assert len(ElementTree.fromstring(large).findall(f"{space}g")) == MOST_EDGES
    assert f"the {MOST_EDGES} largest of 400 edges" in large


def test_edges_are_listed_by_layer_and_size(rng):
    """The largest of a layer first."""
    x = torch.rand(30, 2, generator=rng, dtype=torch.float64)
    edges = name_edges(look_at(small_kan(rng), x, len(x)))

    assert [edge["layer"] for edge in edges] == [1] * 8 + [2] * 4
    assert all(a["size"] >= b["size"] for a, b in itertools.pairwise(edges) if a["layer"] == b["layer"])


def test_the_probe_takes_an_mlp_of_as_many_parameters(rng):
    """An MLP beside itself takes about as long; a net with no room for one is refused."""
    mlp = mlp_like(50_890, 784, 10, 2)
    held = {"x": torch.randn(40, 784, generator=rng)}

    assert [part.out_features for part in mlp if isinstance(part, nn.Linear)] == [64, 10]
    assert 0.5 < measure_ratio(held, SimpleNamespace(module=mlp), None)["step_time_ratio"] < 2  # noise of a busy machine
    with pytest.raises(Unsupported, match="use a larger net"):
        mlp_like(100, 784, 10, 2)
    with pytest.raises(Unsupported, match="no `module`"):
        measure_ratio(held, SimpleNamespace(), None)
