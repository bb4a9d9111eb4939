"""The formulas against known values, the task's parts and scores, and the formulas of cost against published counts."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from harness_papers.kan_assessment import INPUTS, FormulaParams
from harness_papers.kan_assessment.cost import kan_flops, kan_params, mlp_flops, mlp_params
from harness_papers.kan_assessment.formulas import FORMULAS, draw
from harness_papers.kan_assessment.tasks import load_formula, score
from pydantic import ValidationError
from scipy.integrate import quad

CTX = SimpleNamespace(dtype=torch.float64, device=torch.device("cpu"), rng=lambda stream: np.random.default_rng(5))


def test_declared_sizes_are_those_of_the_formulas():
    """The declaration must not import SciPy to know them."""
    assert {name: formula.inputs for name, formula in FORMULAS.items()} == INPUTS


@pytest.mark.parametrize(
    ("name", "at", "expected"),
    [
        ("exp-sine", (0.5, 1.0), math.e**2),
        ("product", (0.3, -0.5), -0.15),
        ("sine-of-squares", (0.5, 0.5), 1.0),
        ("four-squares", (0.5, 0.5, 0.5, 0.5), math.e),
        ("oscillation", (math.pi / 40,), 1.0),
        ("bessel", (2.404825557695773 / 20,), 0.0),
        ("lorentz", (2.0, 3.0, 1.5, 2.0, math.pi / 2), 12.0),
        ("velocities", (0.5, 0.5), 0.8),
    ],
)
def test_formulas_have_known_values(name, at, expected):
    """Worked out by hand; the zero of J0 from tables."""
    assert float(FORMULAS[name].value(*map(np.array, at))) == pytest.approx(expected, abs=1e-12)


def test_special_functions_are_the_integrals_they_stand_for():
    """The incomplete elliptic integral, and Bessel's own integral for whole orders."""
    elliptic, _ = quad(lambda t: 1 / math.sqrt(1 - 0.6 * math.sin(t) ** 2), 0, 0.7)
    bessel, _ = quad(lambda t: math.cos(2 * t - 5.0 * math.sin(t)) / math.pi, 0, math.pi)

    assert float(FORMULAS["ellipkinc"].value(0.7, 0.6)) == pytest.approx(elliptic, rel=1e-12)
    assert float(FORMULAS["jv"].value(2.0, 5.0)) == pytest.approx(bessel, rel=1e-10)


@pytest.mark.parametrize("name", FORMULAS)
def test_values_are_finite_all_over_the_domain(name):
    """No pole inside, and targets that differ."""
    x, y = draw(name, np.random.default_rng(1), 20_000)

    assert np.abs(x).max() <= 1
    assert np.isfinite(y).all()
    assert y.std() > 0.1


def test_parts_have_their_sizes_and_only_the_test_is_free_of_noise():
    """Targets are in deviations of the train part."""
    clean = load_formula(FormulaParams(name="lorentz", train=300, validation=100, test=50), CTX)
    noisy = load_formula(FormulaParams(name="lorentz", train=300, validation=100, test=50, noise=0.05), CTX)

    assert clean.problem.x.shape == (300, 5)
    assert {part: held["y"].shape for part, held in clean.held.items()} == {"validation": (100, 1), "test": (50, 1)}
    assert float(clean.problem.y.std(unbiased=False)) == pytest.approx(1.0)
    assert torch.equal(clean.held["test"]["y"], noisy.held["test"]["y"])
    validation = noisy.held["validation"]["y"] - clean.held["validation"]["y"]
    assert float(validation.std()) == pytest.approx(0.05, rel=0.3)
    assert float((noisy.problem.y - clean.problem.y).std()) == pytest.approx(0.05, rel=0.2)


def test_scores_have_their_meaning():
    """The mean scores rmse 1, log 0, r2 0; what is worse is cut off; a perfect answer has no infinite logarithm."""
    held = {"x": torch.zeros(4, 2), "y": torch.tensor([[1.0], [-1], [1], [-1]])}
    mean, far, perfect, lost = (
        SimpleNamespace(predict=lambda x, v=v: v)
        for v in (torch.zeros(4, 1), torch.full((4, 1), 9.0), held["y"], torch.full((4, 1), math.nan))
    )

    assert score(held, mean, None, CTX) == {"rmse": 1.0, "log_rmse": 0.0, "r2": 0.0}
    assert score(held, far, None, CTX)["log_rmse"] == 0.0
    assert score(held, far, None, CTX)["r2"] == -1.0
    assert score(held, perfect, None, CTX) == {"rmse": 0.0, "log_rmse": -16.0, "r2": 1.0}
    assert all(map(math.isnan, score(held, lost, None, CTX).values()))
    with pytest.raises(ValueError, match="make them equal"):
        score(held, SimpleNamespace(predict=lambda x: torch.zeros(4)), None, CTX)


def test_an_unknown_formula_is_refused():
    """With the names there are."""
    with pytest.raises(ValidationError, match="ellipkinc"):
        FormulaParams(name="sine")


def test_counts_are_those_of_the_published_table():
    """Rows of the fairer comparison's results: MNIST at 139,770 and 101,770 parameters, ellipkinc at 396 and 10,501."""
    assert kan_params([784, 16, 10], 5, 3) == 139_770
    assert mlp_params([784, 128, 10]) == 101_770
    assert kan_params([2, 5, 1], 20, 3) == 396
    assert mlp_params([2, 100, 100, 1]) == 10_501


def test_flops_follow_their_formulas():
    """By hand for one edge: 27 * 9.5 + 10 - 7.5 + 1, and the shortcut's 2 + 5."""
    assert kan_flops([1, 1], 5, 3) == 260 + 7
    assert kan_flops([1, 1], 5, 3, None) == 260
    assert mlp_flops([3, 2], "relu") == 12 + 2
