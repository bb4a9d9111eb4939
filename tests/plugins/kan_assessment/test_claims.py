"""The claims on KANs and MLPs: they name what exists, and each can come out both ways."""

from __future__ import annotations

import importlib
import math

import pytest
from harness_papers.kan_assessment import ALL_DATA, FORMULAS, PAPER

from harness.rules import Cell

CLAIMS = {claim.name: claim for claim in PAPER.claims}
KANS, MLPS = ("kan", "fastkan"), ("relu", "gelu")


def given(cell: Cell, name: str) -> object:
    return dict(cell.given)[name]


def errors(exceptions: int = 0, **methods: float):
    """log10 of errors by method, 0 unless named; on the last formulas all are alike."""
    alike = FORMULAS[len(FORMULAS) - exceptions :]

    def value(cell: Cell) -> float:
        if cell.metric == "accuracy":
            return 0.9
        return 0.0 if given(cell, "task.name") in alike else methods.get(cell.method.replace("-", "_"), 0.0)

    return value


def accuracies(on: dict[str, dict[str, float]], logs: dict[str, float] | None = None):
    """Accuracy by task and method, 0.9 unless named; errors by method."""

    def value(cell: Cell) -> float:
        if cell.metric == "log_rmse":
            return (logs or {}).get(cell.method, 0.0)
        return on.get(cell.task, {}).get(cell.method, 0.9)

    return value


@pytest.mark.parametrize("claim", PAPER.claims, ids=CLAIMS)
def test_every_cell_names_what_is_declared(claim, unknown_names):
    """A rule about a method, metric or clock that nothing offers could never be judged."""
    assert unknown_names(claim) == []


@pytest.mark.parametrize("claim", PAPER.claims, ids=CLAIMS)
def test_a_claim_says_what_is_smaller_and_what_is_not_verified(claim):
    """A verdict on digits is not one on CIFAR-10."""
    assert claim.scaled_down
    assert claim.unverified
    assert claim.seeds >= 10


MLP_AHEAD = {task: {"relu": 0.95} for task in ALL_DATA}
KAN_AHEAD = {task: {"kan": 0.95} for task in ALL_DATA}
FAR = -1.0
CASES = {
    "a tenth of the error": (errors(kan=FAR), "kan-wins-on-formulas", "supported"),
    "FastKAN alone is enough": (errors(fastkan=FAR), "kan-wins-on-formulas", "supported"),
    "on seven of ten": (errors(3, kan=FAR), "kan-wins-on-formulas", "supported"),
    "on six of ten": (errors(4, kan=FAR), "kan-wins-on-formulas", "refuted"),
    "better, but not twice": (errors(kan=-0.2), "kan-wins-on-formulas", "refuted"),
    "the better MLP counts": (errors(kan=FAR, gelu=FAR), "kan-wins-on-formulas", "refuted"),
    "formulas here, data there": (accuracies(MLP_AHEAD, {"kan": FAR}), "only-on-formulas", "supported"),
    "KAN ahead on data too": (accuracies(KAN_AHEAD, {"kan": FAR}), "only-on-formulas", "refuted"),
    "MLP ahead everywhere": (accuracies(MLP_AHEAD, {"gelu": FAR}), "only-on-formulas", "refuted"),
    "MLP ahead on digits": (accuracies({"digits": {"gelu": 0.95}}), "mlp-wins-on-images", "supported"),
    "FastKAN ahead on digits": (accuracies({"digits": {"fastkan": 0.95}}), "mlp-wins-on-images", "refuted"),
    "alike on digits": (accuracies({}), "mlp-wins-on-images", "inconclusive"),
    "MLP ahead on every table": (accuracies(MLP_AHEAD), "kan-underperforms-on-tables", "supported"),
    "but for wine": (accuracies({**MLP_AHEAD, "wine": {"kan": 0.95}}), "kan-underperforms-on-tables", "refuted"),
    "splines as good as KAN": (errors(kan=FAR, bspline_activation=FAR), "because-of-the-spline", "supported"),
    "splines within twice": (errors(kan=FAR, bspline_activation=-0.8), "because-of-the-spline", "supported"),
    "splines far behind KAN": (errors(kan=FAR, bspline_activation=-0.1), "because-of-the-spline", "refuted"),
    "without splines as good": (errors(kan=FAR, bspline_activation=FAR, silu=-1.1), "because-of-the-spline", "refuted"),
    "the small KAN is nearer": (errors(kan_lbfgs=FAR), "small-kans-fit-formulas", "supported"),
    "the MLP is nearer": (errors(mlp_lbfgs=FAR), "small-kans-fit-formulas", "refuted"),
    "four formulas alike": (errors(4, kan_lbfgs=FAR), "small-kans-fit-formulas", "inconclusive"),
}


@pytest.mark.parametrize(("values", "claim", "expected"), CASES.values(), ids=CASES)
def test_a_rule_has_its_signs_right(values, claim, expected, verdict):
    """Made-up numbers on both sides of each threshold."""
    assert verdict(CLAIMS[claim].rule, values) == expected


@pytest.mark.parametrize(("ratio", "expected"), [(1.5, "supported"), (1.2, "refuted"), (1.36, "inconclusive")])
def test_slower_means_more_than_the_lower_end_of_the_range(ratio, expected, verdict):
    """At all three widths; the formula is meant, not the fused layer."""
    rule = CLAIMS["kan-is-slower"].rule

    assert verdict(rule, lambda cell: ratio) == expected
    assert {given(cell, "method.kernel") for cell in (part.node for part in rule.rules)} == {"formula"}


def test_twice_is_a_factor_of_two():
    """The metric is a decimal logarithm."""
    (first, *_) = CLAIMS["kan-wins-on-formulas"].rule.rules

    assert math.isclose(10**first.low, 2.0)


def test_the_mlp_has_nine_times_the_parameters_of_the_small_kan_or_more(catalogue):
    """On every formula, with the finest grid."""
    for name in FORMULAS:
        shape = catalogue.task("formula").spec.shape(catalogue.task("formula").spec.params(name=name))
        counts = []
        for method in ("kan-lbfgs", "mlp-lbfgs"):
            spec = catalogue.method(method).spec
            module, _, function = spec.cost.partition(":")
            counts.append(getattr(importlib.import_module(module), function)(shape, spec.params())["params"])
        # Of five variables 30 edges of 16 numbers: 480 of 4,609.
        assert 9 * counts[0] <= counts[1]
