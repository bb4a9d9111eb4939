"""EvoNorm's claims: they name what exists, and each can come out both ways."""

from __future__ import annotations

import pytest
from harness_papers.evonorm import BATCHES, PAPER, recipe

from harness.rules import Cell, cells

CLAIMS = {claim.name: claim for claim in PAPER.claims}
TESTABLE = [claim for claim in PAPER.claims if claim.rule is not None]


def by_method(**methods: float):
    """Accuracy by method; methods not named have 0.9."""
    return lambda cell: methods.get(cell.method.replace("-", "_"), 0.9)


def by_batch(s0: dict[int, float], bn: dict[int, float]):
    """Accuracy of the two by batch; batches not named have 0.95."""

    def value(cell: Cell) -> float:
        return {"evonorm-s0": s0, "batchnorm-relu": bn}[cell.method].get(dict(cell.given)["train.batch"], 0.95)

    return value


@pytest.mark.parametrize("claim", PAPER.claims, ids=CLAIMS)
def test_every_cell_names_what_is_declared(claim, unknown_names):
    """A rule about a method, metric or clock that nothing offers could never be judged."""
    assert unknown_names(claim) == []


@pytest.mark.parametrize("claim", TESTABLE, ids=[claim.name for claim in TESTABLE])
def test_a_claim_says_what_is_smaller_and_what_is_not_verified(claim):
    """A verdict on digits is not one on ImageNet."""
    assert "ResNet-8" in claim.scaled_down
    assert claim.unverified
    assert claim.seeds >= 10


CASES = {
    "above both": (by_method(evonorm_b0=0.91), "b0-beats-batchnorm", "supported"),
    "below batch norm with silu": (by_method(evonorm_b0=0.91, batchnorm_silu=0.92), "b0-beats-batchnorm", "refuted"),
    "no better": (by_method(), "b0-beats-batchnorm", "inconclusive"),
    "s0 flat, bn collapses": (by_batch({2: 0.945}, {2: 0.5}), "s0-holds-at-small-batches", "supported"),
    "s0 gains, bn collapses": (by_batch({2: 0.99}, {2: 0.5}), "s0-holds-at-small-batches", "supported"),
    "both flat": (by_batch({}, {}), "s0-holds-at-small-batches", "refuted"),
    "both fall": (by_batch({2: 0.8}, {2: 0.5}), "s0-holds-at-small-batches", "refuted"),
    "at group norm's level": (by_method(evonorm_s0=0.896), "s0-not-below-groupnorm", "supported"),
    "below group norm": (by_method(evonorm_s0=0.894), "s0-not-below-groupnorm", "refuted"),
    "the swish does as well": (by_method(evonorm_s0=0.95, groupnorm_silu=0.95), "s0-is-more-than-swish", "inconclusive"),
    "the swish does not": (by_method(evonorm_s0=0.95, groupnorm_silu=0.94), "s0-is-more-than-swish", "supported"),
}


@pytest.mark.parametrize(("values", "claim", "expected"), CASES.values(), ids=CASES)
def test_a_rule_has_its_signs_right(values, claim, expected, verdict):
    """Made-up accuracies on both sides of each threshold."""
    assert verdict(CLAIMS[claim].rule, values) == expected


def test_one_batch_size_below_group_norm_refutes(verdict):
    """The claim is about every batch size."""

    def value(cell: Cell) -> float:
        return 0.5 if cell.method == "evonorm-s0" and dict(cell.given)["train.batch"] == 8 else 0.9

    assert verdict(CLAIMS["s0-not-below-groupnorm"].rule, value) == "refuted"


def test_the_rate_goes_with_the_batch_and_the_samples_stay(catalogue):
    """Ten passes at every batch size, at 0.1 for 128."""
    task = catalogue.task("digits").spec
    made = [recipe(batch) for batch in BATCHES]

    assert [m["train__lr"] / m["train__batch"] for m in made] == pytest.approx([0.1 / 128] * len(BATCHES))
    assert {m["budget__samples_seen"] for m in made} == {10 * task.shape(task.params())["train_items"]}


def test_every_batch_size_of_the_sweep_is_in_a_rule():
    """128, 32, 8 and 2."""
    swept = {dict(cell.given)["train.batch"] for cell in cells(CLAIMS["s0-not-below-groupnorm"].rule)}

    assert swept == set(BATCHES)
