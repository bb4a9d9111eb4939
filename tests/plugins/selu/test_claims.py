"""SELU's claims: they name what exists, and each can come out both ways."""

from __future__ import annotations

import pytest
from harness_papers.selu import BN, ITEMS, PAPER, RIVALS

from harness.rules import Cell

CLAIMS = {claim.name: claim for claim in PAPER.claims}
TESTABLE = [claim for claim in PAPER.claims if claim.rule is not None]


def given(cell: Cell, name: str) -> object:
    return dict(cell.given)[name]


def by_method(**methods: float):
    """Accuracy by method; methods not named have 0.9."""
    return lambda cell: methods.get(cell.method.replace("-", "_"), 0.9)


def by_depth(selu: dict[int, float], relu: dict[int, float]):
    """Accuracy of the two by depth; depths not named have 0.95."""
    return lambda cell: {"selu": selu, "relu": relu}[cell.method].get(given(cell, "net.depth"), 0.95)


@pytest.mark.parametrize("claim", PAPER.claims, ids=CLAIMS)
def test_every_cell_names_what_is_declared(claim, unknown_names):
    """A rule about a method, metric or clock that nothing offers could never be judged."""
    assert unknown_names(claim) == []


@pytest.mark.parametrize("claim", TESTABLE, ids=[claim.name for claim in TESTABLE])
def test_a_claim_says_what_is_smaller_and_what_is_not_verified(claim):
    """A verdict on four tables is not one on 121."""
    assert claim.scaled_down
    assert claim.unverified
    assert claim.seeds >= 10


CASES = {
    "best everywhere": (by_method(selu=0.95), "ranks-first", "supported"),
    "worst everywhere": (by_method(selu=0.8), "ranks-first", "refuted"),
    "all alike": (by_method(), "ranks-first", "inconclusive"),
    "second to batch norm": (by_method(selu=0.95, **{BN.replace("-", "_"): 0.96}), "ranks-first", "refuted"),
    "above relu and batch norm": (by_method(selu=0.91), "trains-deep", "supported"),
    "below batch norm": (by_method(selu=0.95, relu=0.1, batchnorm_relu=0.96), "trains-deep", "refuted"),
    "selu keeps, relu fails": (by_depth({}, {32: 0.1}), "loses-nothing-at-depth", "supported"),
    "selu is best at depth 32": (by_depth({32: 0.99}, {32: 0.1}), "loses-nothing-at-depth", "supported"),
    "selu loses two points": (by_depth({8: 0.97}, {32: 0.1}), "loses-nothing-at-depth", "refuted"),
    "relu keeps as well": (by_depth({}, {}), "loses-nothing-at-depth", "refuted"),
    "he's weights do as well": (by_method(selu=0.95, selu_he=0.95), "because-of-the-init", "inconclusive"),
    "he's weights fail": (by_method(selu=0.95, selu_he=0.3), "because-of-the-init", "supported"),
    "inverted dropout does better": (by_method(selu_inverted_dropout=0.95), "alpha-dropout-fits", "refuted"),
    "inverted dropout does worse": (by_method(selu_inverted_dropout=0.85), "alpha-dropout-fits", "supported"),
}


@pytest.mark.parametrize(("values", "claim", "expected"), CASES.values(), ids=CASES)
def test_a_rule_has_its_signs_right(values, claim, expected, verdict):
    """Made-up accuracies on both sides of each threshold."""
    assert verdict(CLAIMS[claim].rule, values) == expected


def test_the_mean_rank_weighs_tables_not_accuracies(verdict):
    """One table on which SELU fails outright costs one rank, not its accuracy."""

    def fails_on_iris(cell: Cell) -> float:
        return (0.0 if cell.task == "iris" else 0.91) if cell.method == "selu" else 0.9

    assert verdict(CLAIMS["ranks-first"].rule, fails_on_iris) == "supported"


def test_every_rival_meets_selu_on_every_table(catalogue):
    """And each table's budget is forty passes over its own train part."""
    for name, items in ITEMS.items():
        task = catalogue.task(name).spec
        assert task.shape(task.params())["train_items"] == items
    assert {catalogue.method(name).name for name in RIVALS} == set(RIVALS)
