"""S-KAN's claims: they name what exists, each can come out both ways, and what is compared is comparable."""

from __future__ import annotations

import importlib

import pytest
from harness_papers.skan import FAMILIES, FUNCTIONS, METHODS, MLPS, PAPER
from harness_papers.skan.functions import FUNCTIONS as CODE
from harness_papers.skan.method import POOL

from harness.rules import Cell, cells

CLAIMS = {claim.name: claim for claim in PAPER.claims}
TESTABLE = [claim for claim in PAPER.claims if claim.rule is not None]


def made_up(best: float = 0.5, **values: float):
    """Error or accuracy by arm. Families not named: the one that suits the function `best`, the others 1."""

    def value(cell: Cell) -> float:
        given = dict(cell.given)
        detail = given.get("method.family") or given.get("method.activation") or ""
        name = detail.replace("-", "_") or cell.method.removeprefix("skan-").replace("-", "_")
        if name in values:
            return values[name]
        if cell.task == "digits":
            return 0.9
        suits = FAMILIES[FUNCTIONS.index(given["task.function"]) % len(FAMILIES)]
        return best if detail == suits else 1.0

    return value


@pytest.mark.parametrize("claim", PAPER.claims, ids=CLAIMS)
def test_every_cell_names_what_is_declared(claim, unknown_names):
    """A rule about a method, metric or parameter that nothing offers could never be judged."""
    assert unknown_names(claim) == []


@pytest.mark.parametrize("claim", TESTABLE, ids=[claim.name for claim in TESTABLE])
def test_a_claim_says_what_is_smaller_and_that_the_method_is_a_reconstruction(claim):
    assert claim.scaled_down
    assert any("reconstruction" in text for text in claim.unverified)
    assert claim.seeds >= 10


CASES = {
    "near the best everywhere": (made_up(s_kan=0.6), "ranks-before-every-family", "supported"),
    "one family always best": (made_up(s_kan=0.6, gram=0.1), "ranks-before-every-family", "refuted"),
    "as good as chance": (made_up(s_kan=0.7, random=0.7), "because-it-selects", "inconclusive"),
    "better than chance": (made_up(s_kan=0.6, random=0.7), "because-it-selects", "supported"),
    "worse than chance": (made_up(s_kan=0.7, random=0.6), "because-it-selects", "refuted"),
    "within twice the oracle": (made_up(s_kan=0.9), "near-the-best-family", "supported"),
    "at twice the oracle": (made_up(s_kan=1.0), "near-the-best-family", "inconclusive"),
    "beyond twice the oracle": (made_up(s_kan=1.1), "near-the-best-family", "refuted"),
    "below both mlps": (made_up(s_kan=0.8, gelu=0.9, silu=0.9), "beats-mlps", "supported"),
    "between the mlps": (made_up(s_kan=0.8, gelu=0.7, silu=0.9), "beats-mlps", "refuted"),
    "above both mlps": (made_up(s_kan=0.8, gelu=0.7, silu=0.7), "beats-mlps", "refuted"),
    "second everywhere": (made_up(s_kan=0.6), "varies-less-over-tasks", "supported"),
    "leads on digits": (made_up(s_convkan=0.95), "convkan-leads-on-digits", "supported"),
    "ties on digits": (made_up(), "convkan-leads-on-digits", "inconclusive"),
    "behind one family on digits": (made_up(s_convkan=0.95, gram=0.96), "convkan-leads-on-digits", "refuted"),
    "behind a cnn on digits": (made_up(s_convkan=0.95, silu=0.96), "convkan-leads-on-digits", "refuted"),
}


@pytest.mark.parametrize(("values", "claim", "expected"), CASES.values(), ids=CASES)
def test_a_rule_has_its_signs_right(values, claim, expected, verdict):
    """Made-up errors and accuracies on both sides of each threshold."""
    assert verdict(CLAIMS[claim].rule, values) == expected


def test_the_spread_counts_against_what_swings(verdict):
    """First on one function and last on another: more spread than families that always stand in the same place."""

    def value(cell: Cell) -> float:
        given = dict(cell.given)
        if cell.method == "s-kan":
            return 0.1 if given["task.function"] == "smooth" else 9.0
        return 1.0 + FAMILIES.index(given["method.family"]) if "method.family" in given else 5.5

    assert verdict(CLAIMS["varies-less-over-tasks"].rule, value) == "refuted"


def test_declarations_and_code_name_the_same():
    """The declarations import no torch, so they name the pool and the functions again."""
    assert FAMILIES == POOL
    assert tuple(CODE) == FUNCTIONS


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_has_its_code(method):
    for place in (method.solve, method.cost):
        module, _, function = place.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_every_rank_is_among_all_arms():
    """Dropping a rival would raise everyone's rank."""
    among = {cell.method for cell in cells(CLAIMS["because-it-selects"].rule)}

    assert among == {"s-kan", "skan-random", "skan-family", "skan-mlp"}
    assert len(set(cells(CLAIMS["because-it-selects"].rule))) == 7 * (2 + len(FAMILIES) + len(MLPS))
