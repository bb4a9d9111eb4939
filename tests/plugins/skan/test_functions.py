"""The seven functions as tasks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from harness_papers.skan import FunctionParams, function_shape
from harness_papers.skan.functions import FUNCTIONS, load, score

from harness.context import Context

AT = {
    "smooth": ([0.5, -1.0], math.exp(2.0)),
    "oscillating": ([0.25], math.sin(5.0)),
    "piecewise": ([-0.5], -0.5),
    "localised": ([0.4], math.exp(-2.0)),
    "product": ([0.5, -0.5, 0.8], -0.2),
    "rational": ([0.2], 0.5),
    "bessel": ([2.404825557695773 / 20], 0.0),  # the first zero of J0
}


@pytest.fixture
def make_ctx(tmp_path):
    return lambda seed=0: Context(
        device="cpu", dtype="float64", budget={}, root_seed=0, seed=seed, task='["toy",{}]', scratch=tmp_path
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_its_values(name):
    x, value = AT[name]

    assert FUNCTIONS[name](np.array([x]))[0] == pytest.approx(value, abs=1e-12)


def test_the_step_stands_at_a_fifth():
    values = FUNCTIONS["piecewise"](np.array([[0.1999], [0.2001]]))

    assert values[1] - values[0] == pytest.approx(2.0, abs=1e-3)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_points_fill_the_cube_and_targets_are_scaled(name, make_ctx):
    params = FunctionParams(function=name)
    problem, held = load(params, make_ctx())

    assert problem.x.shape == (1000, function_shape(params)["inputs"])
    assert {part: tuple(values["y"].shape) for part, values in held.items()} == {"validation": (1000, 1), "test": (1000, 1)}
    for x in (problem.x, held["test"]["x"]):
        assert -1 <= x.min() < -0.97
        assert 0.97 < x.max() <= 1
    assert problem.y.mean().abs() < 1e-12
    assert problem.y.std(unbiased=False).item() == pytest.approx(1.0, rel=1e-12)
    # The held parts are the same function at the same scale: nearest neighbours agree where it is not steep.
    y = FUNCTIONS[name](problem.x.numpy())
    held_y = FUNCTIONS[name](held["test"]["x"].numpy())
    np.testing.assert_allclose((held_y - y.mean()) / y.std(), held["test"]["y"][:, 0].numpy(), rtol=1e-10, atol=1e-12)


def test_noise_stands_on_train_targets_only(make_ctx):
    exact, held = load(FunctionParams(function="bessel"), make_ctx())
    noisy, same = load(FunctionParams(function="bessel", noise=0.05), make_ctx())

    assert torch.equal(exact.x, noisy.x)
    assert torch.equal(held["test"]["y"], same["test"]["y"])
    assert (noisy.y - exact.y).std().item() == pytest.approx(0.05, rel=0.1)


def test_each_seed_draws_its_points(make_ctx):
    first, second = (load(FunctionParams(), make_ctx(seed))[0].x for seed in (0, 1))

    assert not torch.equal(first, second)


class Constant:
    def __init__(self, value):
        self.value = value

    def predict(self, x):
        return torch.full((len(x), 1), self.value)


def test_the_score_is_the_root_of_the_mean_square(make_ctx):
    part = {"x": torch.zeros(2, 1), "y": torch.tensor([[1.0], [-1.0]], dtype=torch.float64)}

    assert score(part, Constant(0.0), None, make_ctx())["rmse"] == 1.0
    assert score(part, Constant(1.0), None, make_ctx())["rmse"] == pytest.approx(math.sqrt(2.0))
    assert math.isnan(score(part, Constant(math.nan), None, make_ctx())["rmse"])
