"""CRReLU's claims: they name what exists, and each can come out both ways."""

from __future__ import annotations

import pytest
from harness_papers.crrelu import MARGIN, PAPER, SAMPLES

from harness.rules import All, Cell, cells

CLAIMS = {claim.name: claim for claim in PAPER.claims}
TESTABLE = [claim for claim in PAPER.claims if claim.rule is not None]
IMAGE = 1 / 360  # one image of digits' test part


def made_up(**methods: float):
    """Accuracy by method, the same in both nets; methods not named have 0.9."""
    return lambda cell: methods.get(cell.method.replace("-", "_"), 0.9)


@pytest.mark.parametrize("claim", PAPER.claims, ids=CLAIMS)
def test_every_cell_names_what_is_declared(claim, unknown_names):
    """A rule about a method, metric or clock that nothing offers could never be judged."""
    assert unknown_names(claim) == []


@pytest.mark.parametrize("claim", TESTABLE, ids=[claim.name for claim in TESTABLE])
def test_a_claim_says_what_is_smaller_and_what_is_not_verified(claim):
    """A verdict on digits is not one on ImageNet, and a number that nobody read is not the paper's."""
    assert "digits" in claim.scaled_down
    assert claim.unverified
    assert claim.seeds >= 10


CASES = {
    "a gain on both": (made_up(crrelu=0.9 + IMAGE), "beats-relu", "supported"),
    "no difference": (made_up(), "beats-relu", "inconclusive"),
    "a loss": (made_up(crrelu=0.9 - IMAGE), "beats-relu", "refuted"),
    "only leaky relu is beaten": (made_up(crrelu=0.91, prelu=0.92), "beats-corrections-of-relu", "refuted"),
    "all corrections are beaten": (made_up(crrelu=0.91, relu=0.99), "beats-corrections-of-relu", "supported"),
    "equal to gelu": (made_up(), "not-below-gelu", "supported"),
    "below gelu, within the margin": (made_up(crrelu=0.9 - 0.9 * MARGIN), "not-below-gelu", "supported"),
    "below gelu by more": (made_up(crrelu=0.9 - 1.1 * MARGIN), "not-below-gelu", "refuted"),
    "the even bump does as well": (made_up(crrelu=0.95, crrelu_even=0.95), "because-of-the-odd-correction", "inconclusive"),
    "the even bump does not": (made_up(crrelu=0.95, crrelu_even=0.94), "because-of-the-odd-correction", "supported"),
}


@pytest.mark.parametrize(("values", "claim", "expected"), CASES.values(), ids=CASES)
def test_a_rule_has_its_signs_right(values, claim, expected, verdict):
    """Made-up accuracies on both sides of each threshold."""
    assert verdict(CLAIMS[claim].rule, values) == expected


def test_a_gain_in_one_net_only_does_not_support(verdict):
    """The claim is about both; all rules are joined by All."""

    def only_in_the_mlp(cell: Cell) -> float:
        return 0.95 if cell.method == "crrelu" and ("net.arch", "mlp") in cell.given else 0.9

    for claim in ("beats-relu", "beats-corrections-of-relu", "because-of-the-odd-correction"):
        assert isinstance(CLAIMS[claim].rule, All)
        assert verdict(CLAIMS[claim].rule, only_in_the_mlp) == "inconclusive"


def test_the_budget_is_forty_passes(catalogue):
    """The number of train items is written into the declaration; here it is compared with the task's."""
    task = catalogue.task("digits").spec

    assert {"budget__samples_seen": 40 * task.shape(task.params())["train_items"]} == SAMPLES


def test_methods_of_a_claim_meet_the_same_net_and_budget():
    """Otherwise the difference would not be the activation's."""
    for claim in TESTABLE:
        for rule in claim.rule.rules:
            treatment, control = cells(rule)
            assert treatment.given == control.given
