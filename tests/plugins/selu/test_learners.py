"""The nets, the forest and the machine that are compared on tables: form, first weights, costs, and that they learn."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from harness_papers.selu.learners import BUILDERS, Highway, Residual, cost, finish, measure_depth, solve
from harness_papers.selu.method import moment_map
from harness_papers.selu.peers import solve_forest, solve_svm
from harness_papers.selu.tabular import LEARNERS, ForestParams, NetParams, SVMParams
from torch import nn

from harness.context import Context
from harness.lab import Classify, NetSolution, init_net

NETS = list(BUILDERS)


@pytest.fixture
def ctx(tmp_path):
    """(steps, seed) -> a context in solve."""

    def make(steps=200, seed=0, dtype="float32"):
        made = Context(device="cpu", dtype=dtype, budget={"steps": steps}, root_seed=0, seed=seed, task="t", scratch=tmp_path)
        made.stage = "solve"
        made._on_offer = lambda solution, at: None
        return made

    return make


@pytest.fixture
def blobs(rng):
    """Two normals of five features, 2.5 apart in each; the second half are for the test."""
    y = torch.arange(600) % 2
    x = torch.randn(600, 5, generator=rng) + 1.25 * (2 * y[:, None] - 1)
    return Classify(x[:300], y[:300], 2, (5,)), (x[300:], y[300:])


def built(kind, ctx, **params):
    net = BUILDERS[kind][0](5, 3, NetParams(**{"width": 16, "depth": 4} | params))
    init_net(net, ctx(), BUILDERS[kind][1])
    finish(net)
    return net


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_net_has_as_many_hidden_layers_as_it_is_told(kind, depth, ctx):
    """Claims compare chosen depths: a layer must mean the same in every net."""
    net = built(kind, ctx, depth=depth)

    assert measure_depth(None, NetSolution(net), None) == {"hidden_layers": depth}
    assert net(torch.zeros(2, 5)).shape == (2, 3)


@pytest.mark.parametrize("kind", NETS)
def test_an_image_is_a_row_of_its_pixels(kind, ctx, rng):
    """digits are images; the nets see 64 numbers."""
    net = BUILDERS[kind][0](64, 10, NetParams(width=16, depth=3))
    init_net(net, ctx(), BUILDERS[kind][1])
    finish(net)
    x = torch.randn(6, 1, 8, 8, generator=rng)

    assert torch.equal(net.eval()(x), net(x.reshape(6, 64)))


@pytest.mark.parametrize(
    ("run", "params"), [(solve_forest, ForestParams(trees=5)), (solve_svm, SVMParams())], ids=["forest", "svm"]
)
def test_forest_and_machine_take_images_too(run, params, blobs, ctx):
    problem, (x, _) = blobs
    images = Classify(problem.x[:, :4].reshape(-1, 1, 2, 2), problem.y, 2, (1, 2, 2))
    rows = Classify(problem.x[:, :4], problem.y, 2, (4,))

    seen = run(images, ctx(), params).predict(x[:, :4].reshape(-1, 1, 2, 2))

    assert torch.equal(seen, run(rows, ctx(), params).predict(x[:, :4]))


def test_what_is_no_net_has_no_hidden_layers():
    assert measure_depth(None, object(), None) == {"hidden_layers": 0.0}


PARAMETERS = {  # of 5 features, 3 classes, width 16, depth 4: affine maps, and what stands between them
    "snn": 6 * 16 + 3 * 17 * 16 + 17 * 3,
    "relu": 6 * 16 + 3 * 17 * 16 + 17 * 3,
    "batchnorm": 6 * 16 + 3 * 17 * 16 + 17 * 3 + 4 * 32,
    "layernorm": 6 * 16 + 3 * 17 * 16 + 17 * 3 + 4 * 32,
    "weightnorm": 6 * 16 + 3 * 17 * 16 + 17 * 3 + 4 * 16 + 3,  # a length for each unit
    "highway": 6 * 16 + 3 * 2 * 17 * 16 + 17 * 3,  # a gate as large as the layer
    "resnet": 6 * 16 + 3 * (17 * 16 + 32) + 32 + 17 * 3,
}


@pytest.mark.parametrize(("kind", "count"), PARAMETERS.items())
def test_costs_are_those_of_the_net_by_hand(kind, count, ctx):
    shape = {"inputs": 5, "outputs": 3, "train_items": 300}

    found = cost(kind, shape, NetParams(width=16, depth=4))

    assert found["params"] == count == sum(p.numel() for p in built(kind, ctx).parameters())
    assert found["flops"] >= 4 * (5 * 16 + 3 * 16 * 16 + 16 * 3)  # forward and both products of the backward pass, at least


def test_the_snn_starts_as_the_theory_asks(ctx, rng):
    """LeCun's weights: through 32 layers mean 0 and variance 1 stay; He's, which the others have, are sqrt(2) wider."""
    snn, he = built("snn", ctx, width=128, depth=32), built("relu", ctx, width=128, depth=32)
    x = torch.randn(512, 5, generator=rng)
    hidden = nn.Sequential(*list(snn.children())[:-1]).eval()(x)

    torch.testing.assert_close(he[4].weight, math.sqrt(2) * snn[4].weight)
    assert abs(hidden.mean().item()) < 0.2
    assert 0.7 < hidden.var().item() < 1.4  # width 128: tau of a unit varies by 12 %
    assert moment_map(0, 1) == pytest.approx((0, 1), abs=1e-12)


def test_weight_norm_starts_as_the_plain_net_and_takes_length_and_direction_apart(ctx, rng):
    """w = g v / |v| for each unit; doubling g doubles the layer's slope, doubling v changes nothing."""
    x = torch.randn(7, 5, generator=rng)
    normed = BUILDERS["weightnorm"][0](5, 3, NetParams(width=16, depth=4))
    init_net(normed, ctx(), "he")
    plain = normed(x)
    finish(normed)
    torch.testing.assert_close(normed(x), plain)
    layer = normed[1].layer
    g, v = layer.g, layer.v
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), layer(x))  # it is kept with its record
    torch.testing.assert_close(layer.weight, g * v / v.norm(dim=1, keepdim=True))
    before = layer(x)

    with torch.no_grad():
        v.mul_(2)
        same = layer(x)
        g.mul_(2)

    torch.testing.assert_close(same, before)
    torch.testing.assert_close(layer(x), 2 * before)  # biases are 0 at first


def test_a_highway_layer_is_its_formula(rng):
    """t h + (1 - t) x; a gate that is shut passes x on."""
    layer = Highway(4, 0.0).double()
    for p in layer.parameters():
        nn.init.normal_(p, generator=rng)
    x = torch.randn(6, 4, generator=rng, dtype=torch.float64)
    t, h = torch.sigmoid(layer.gate(x)), torch.relu(layer.change(x))

    torch.testing.assert_close(layer(x), t * h + (1 - t) * x, rtol=1e-12, atol=1e-12)  # float64; only rounding differs
    nn.init.constant_(layer.gate.weight, 0.0)
    nn.init.constant_(layer.gate.bias, -60.0)
    torch.testing.assert_close(layer(x), x)


def test_a_residual_block_adds_to_what_it_is_given(rng):
    """With zero weights in its last layer it is the identity."""
    block = Residual(4, 2, 0.0)
    for part in block.branch:
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    x = torch.randn(6, 4, generator=rng)

    assert torch.equal(block(x), x)
    assert [type(part).__name__ for part in block.branch] == ["BatchNorm1d", "ReLU", "Dropout", "Linear"] * 2


@pytest.mark.parametrize("kind", NETS)
def test_every_net_learns_and_repeats_with_its_seed(kind, blobs, ctx):
    """Two normals whose best border is right in 99.7 % of cases."""
    problem, (x, y) = blobs
    params = NetParams(width=16, depth=3, dropout=0.1)

    first, again = (solve(*BUILDERS[kind], problem, ctx(), params) for _ in range(2))

    assert (first.predict(x).argmax(dim=1) == y).double().mean() > 0.95
    assert torch.equal(first.predict(x), again.predict(x))


@pytest.mark.parametrize(
    ("run", "params"), [(solve_forest, ForestParams(trees=20)), (solve_svm, SVMParams())], ids=["forest", "svm"]
)
def test_scikit_learn_s_own_answers_are_the_solution_s(run, params, blobs, ctx):
    """The logits' best class is what the fitted model predicts; the same seed gives the same."""
    problem, (x, y) = blobs
    solution, again = run(problem, ctx(), params), run(problem, ctx(), params)
    logits = solution.predict(x)

    assert logits.shape == (300, 2)
    assert logits.dtype == torch.float32
    assert np.array_equal(logits.argmax(dim=1).numpy(), solution.fitted.predict(x.double().numpy()))
    assert (logits.argmax(dim=1) == y).double().mean() > 0.95
    assert torch.equal(logits, again.predict(x))


@pytest.mark.parametrize(
    ("run", "params"), [(solve_forest, ForestParams(trees=20)), (solve_svm, SVMParams())], ids=["forest", "svm"]
)
def test_a_class_that_no_training_row_has_is_never_the_answer(run, params, blobs, ctx):
    """Small tables lose rare classes to the split."""
    problem, (x, _) = blobs
    three = Classify(problem.x, 2 * problem.y, 3, (5,))

    logits = run(three, ctx(), params).predict(x)

    assert logits.shape == (300, 3)
    assert logits.isfinite().all()
    assert set(logits.argmax(dim=1).tolist()) == {0, 2}


def test_a_machine_that_is_stopped_says_so(blobs, ctx):
    """Beyond its iterations the answer is a rough one: a diagnostic, and no warning."""
    problem, _ = blobs
    short, long_ = ctx(), ctx()

    solve_svm(problem, short, SVMParams(iterations=3))
    solve_svm(problem, long_, SVMParams())

    assert (short.diagnostics["stopped_early"], long_.diagnostics["stopped_early"]) == (1.0, 0.0)


def test_every_learner_resolves_and_shares_the_track(catalogue):
    """The names of code in the declarations exist."""
    import importlib

    for spec in LEARNERS:
        for dotted in filter(None, (spec.solve, spec.cost)):
            module, _, function = dotted.partition(":")
            assert callable(getattr(importlib.import_module(module), function))
        assert catalogue.method(spec.name).spec is not None
