"""NoProp's claims: they name what exists, each can come out both ways, and what is compared is comparable."""

from __future__ import annotations

import importlib

import pytest
from harness_papers.noprop import (
    ADJOINT,
    DT,
    ENSEMBLE_WIDTH,
    EPOCHS,
    ITEMS,
    LONG,
    MNIST_EPOCHS,
    MNIST_ITEMS,
    PAPER,
    POINT,
    WIDTH,
)

from harness.rules import Cell, cells

CLAIMS = {claim.name: claim for claim in PAPER.claims}
TESTABLE = [claim for claim in PAPER.claims if claim.rule is not None]


def made_up(**values: float):
    """Accuracy by method, or by method and one of its parameters: dt, dt_random, backprop_layer. Not named: 0.9."""

    def value(cell: Cell) -> float:
        name = cell.method.removeprefix("noprop-").replace("-", "_")
        given = dict(cell.given)
        detail = given.get("method.norm") or given.get("method.embedding")
        return values.get(f"{name}_{detail}", values.get(name, 0.9))

    return value


@pytest.mark.parametrize("claim", PAPER.claims, ids=CLAIMS)
def test_every_cell_names_what_is_declared(claim, unknown_names):
    """A rule about a method, metric or parameter that nothing offers could never be judged."""
    assert unknown_names(claim) == []


@pytest.mark.parametrize("claim", TESTABLE, ids=[claim.name for claim in TESTABLE])
def test_a_claim_says_what_is_smaller_and_what_is_not_verified(claim):
    """A verdict on digits is not one on CIFAR, and a number that nobody read is not the paper's."""
    assert "digits" in claim.scaled_down or "MNIST" in claim.says
    assert "instead of" in claim.scaled_down
    assert claim.unverified
    assert claim.seeds >= 10


CASES = {
    "as good as backprop": (made_up(), "matches-backprop", "supported"),
    "within a point": (made_up(dt=0.9 - 0.9 * POINT), "matches-backprop", "supported"),
    "a point and a half below": (made_up(dt=0.9 - 1.5 * POINT), "matches-backprop", "inconclusive"),
    "two points below": (made_up(dt=0.9 - 2.1 * POINT), "matches-backprop", "refuted"),
    "below the better norm only": (made_up(backprop_layer=0.95), "matches-backprop", "refuted"),
    "as good, given time": (made_up(), "matches-backprop-given-time", "supported"),
    "worse, given time": (made_up(backprop=0.95), "matches-backprop-given-time", "refuted"),
    "as good on a part of MNIST": (made_up(), "matches-backprop-on-small-mnist", "supported"),
    "worse there than the better norm": (made_up(backprop_layer=0.95), "matches-backprop-on-small-mnist", "refuted"),
    "the chain adds": (made_up(dt=0.95), "chain-adds-to-its-first-block", "supported"),
    "the chain adds nothing": (made_up(), "chain-adds-to-its-first-block", "inconclusive"),
    "the chain is worse": (made_up(dt=0.89), "chain-adds-to-its-first-block", "refuted"),
    "the ensemble does as well": (made_up(), "more-than-an-ensemble", "inconclusive"),
    "the ensemble does better": (made_up(ensemble=0.91), "more-than-an-ensemble", "refuted"),
    "the ensemble does not": (made_up(ensemble=0.89), "more-than-an-ensemble", "supported"),
    "both beat the adjoint": (made_up(adjoint=0.8), "continuous-beats-adjoint", "supported"),
    "only flow matching does": (made_up(adjoint=0.8, ct=0.7), "continuous-beats-adjoint", "refuted"),
    "only ct does": (made_up(adjoint=0.8, fm=0.7), "continuous-beats-adjoint", "refuted"),
    "all starts are equal": (made_up(), "structured-embeddings", "supported"),
    "random is better than images": (made_up(dt_random=0.93, dt_learned=0.93), "structured-embeddings", "refuted"),
    "random is better than orthogonal": (made_up(dt_random=0.93, dt_prototype=0.93), "structured-embeddings", "refuted"),
}


@pytest.mark.parametrize(("values", "claim", "expected"), CASES.values(), ids=CASES)
def test_a_rule_has_its_signs_right(values, claim, expected, verdict):
    """Made-up accuracies on both sides of each threshold."""
    assert verdict(CLAIMS[claim].rule, values) == expected


def test_the_room_between_one_and_two_points_is_left_open():
    """The card: within a point supports, more than two points below contradicts."""
    rule = CLAIMS["matches-backprop"].rule

    assert (rule.low, rule.slack) == (-0.01, 0.01)
    assert (CLAIMS["matches-backprop-given-time"].rule.low, CLAIMS["matches-backprop-given-time"].rule.slack) == (-0.01, 0.01)


def test_the_budget_is_sixty_passes(catalogue):
    """The number of train items is written into the declaration; here it is compared with the task's."""
    task, mnist = catalogue.task("digits").spec, catalogue.task("mnist").spec

    assert mnist.shape(mnist.params(subset=MNIST_ITEMS))["train_items"] == MNIST_ITEMS
    assert task.shape(task.params())["train_items"] == ITEMS
    assert dict(DT.given)["budget.samples_seen"] == EPOCHS * ITEMS


def test_what_is_compared_has_as_many_parameters(catalogue):
    """DT, the chain and the ensemble within a hundredth; CT, FM and the adjoint within a twentieth of each other."""
    shape = catalogue.task("digits").spec.shape(catalogue.task("digits").spec.params())

    def params_of(name: str, width: int = WIDTH) -> int:
        spec = catalogue.method(name).spec
        module, _, function = spec.cost.partition(":")
        return getattr(importlib.import_module(module), function)(shape, spec.params(width=width))["params"]

    chain = params_of("noprop-dt")
    assert params_of("noprop-backprop") == pytest.approx(chain, rel=0.01)
    assert params_of("noprop-ensemble", ENSEMBLE_WIDTH) == pytest.approx(chain, rel=0.01)
    adjoint = params_of("noprop-adjoint")
    assert [params_of("noprop-ct"), params_of("noprop-fm")] == pytest.approx([adjoint, adjoint], rel=0.05)


def test_methods_of_a_claim_meet_the_same_budget():
    """Otherwise the difference would not be the method's."""
    for claim in TESTABLE:
        seen = {"matches-backprop-given-time": LONG * ITEMS, "matches-backprop-on-small-mnist": MNIST_EPOCHS * MNIST_ITEMS}
        asked = seen.get(claim.name, EPOCHS * ITEMS)
        assert {dict(cell.given)["budget.samples_seen"] for cell in cells(claim.rule)} == {asked}
    assert ADJOINT in set(cells(CLAIMS["continuous-beats-adjoint"].rule))
