"""The declarations as installed, and each claim's rule: it names what exists, and it can hold and fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness_papers.boolean_rrr import METHODS, TASKS, TRACK
from harness_papers.boolean_rrr.claims import PAPER, READ_BY_SIGN

from harness.rules import Cell, cells

CLAIMS = {claim.name: claim for claim in PAPER.claims}


def made_up(**by_method: list[float]) -> Callable[[Cell], list[float]]:
    """Values by method; of rrr also by its parameters and items, as "rrr[beta=0.5]" or "rrr[n_train=64]"."""

    def values(cell: Cell) -> list[float]:
        named = {name.rpartition(".")[2]: value for name, value in cell.given}
        told = ("beta", "sigma") if "n_train" not in named else ("n_train",)
        parameters = [f"{name}={named[name]}" for name in told if named.get(name) is not None]
        return by_method.get(f"{cell.method}[{','.join(parameters)}]", by_method.get(cell.method, [0.0, 0.0, 0.0]))

    return values


SOME, MORE, NONE = [0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("claim", "values", "expected"),
    [
        ("finds-circuits", {"rrr": MORE}, True),
        ("finds-circuits", {"rrr": NONE}, False),
        ("finds-circuits", {"rrr": MORE, "straight-through": MORE}, False),
        ("finds-3-bit-circuits", {"rrr[beta=0.2]": MORE, "rrr[beta=0.5]": NONE}, True),
        ("finds-3-bit-circuits", {"rrr[beta=0.2]": NONE, "rrr[beta=0.5]": MORE}, True),
        ("finds-3-bit-circuits", {"rrr": NONE}, False),
        ("beats-gradients-read-by-sign", {"rrr": MORE, "adamw-mlp": SOME, "adamw-mlp-penalty": SOME}, True),
        *(("beats-gradients-read-by-sign", {"rrr": SOME, rival.method: MORE}, False) for rival in READ_BY_SIGN),
        ("sparse-by-margin", {"rrr[beta=0.5]": [0.6] * 3}, True),
        ("sparse-by-margin", {"rrr[beta=0.5]": [0.2] * 3}, False),
        ("sparse-by-margin", {"rrr[beta=0.5]": [0.6] * 3, "rrr[beta=0.5,sigma=1000.0]": [0.5] * 3}, False),
        *(("sparse-by-margin", {"rrr[beta=0.5]": [0.6] * 3, rival.method: [0.5] * 3}, False) for rival in READ_BY_SIGN),
        ("codes-need-a-small-beta", {"rrr[beta=0.2]": [0.9] * 3, "rrr[beta=0.5]": [0.2] * 3}, True),
        ("codes-need-a-small-beta", {"rrr[beta=0.2]": [0.2] * 3, "rrr[beta=0.5]": [0.9] * 3}, False),
        ("codes-of-sixteen-need-a-small-beta", {"rrr[beta=0.2]": MORE, "rrr[beta=0.5]": NONE}, True),
        ("codes-of-sixteen-need-a-small-beta", {"rrr[beta=0.2]": MORE, "rrr[beta=0.5]": MORE}, False),
        ("codes-of-sixteen-need-a-small-beta", {"rrr[beta=0.2]": SOME, "rrr[beta=0.5]": NONE}, False),
        ("reconstructs-random-logic", {"rrr[n_train=256]": [0.99] * 3, "rrr[n_train=64]": [0.75] * 3}, True),
        ("reconstructs-random-logic", {"rrr[n_train=256]": [0.94] * 3, "rrr[n_train=64]": [0.75] * 3}, False),
        ("reconstructs-random-logic", {"rrr[n_train=256]": [0.99] * 3, "rrr[n_train=64]": [0.9] * 3}, False),
        ("learns-rule-30", {"rrr": [0.94] * 3, "adamw-mlp": [0.86] * 3, "adamw-mlp-penalty": [0.9] * 3}, True),
        ("learns-rule-30", {"rrr": [0.89] * 3, "adamw-mlp": [0.86] * 3, "adamw-mlp-penalty": [0.86] * 3}, False),
        ("learns-rule-30", {"rrr": [0.94] * 3, "adamw-mlp": [0.95] * 3, "adamw-mlp-penalty": [0.9] * 3}, False),
        ("learns-rule-30", {"rrr": [0.94] * 3, "adamw-mlp": [0.86] * 3, "adamw-mlp-penalty": [0.95] * 3}, False),
        ("learns-digits", {"rrr[n_train=128]": [0.7] * 3, "rrr[n_train=256]": [0.85] * 3}, True),
        ("learns-digits", {"rrr[n_train=128]": [0.6] * 3, "rrr[n_train=256]": [0.85] * 3}, False),
        ("learns-digits", {"rrr[n_train=128]": [0.7] * 3, "rrr[n_train=256]": [0.8] * 3}, False),
    ],
)
def test_each_rule_can_hold_and_fail(claim, values, expected, verdict):
    """A rule that cannot fail decides nothing."""
    assert (verdict(CLAIMS[claim].rule, made_up(**values)) == "supported") is expected


def test_a_rate_between_a_tenth_and_three_tenths_is_left_open():
    """The card: above 30 % supports, below 10 % contradicts; in between nothing is said."""
    rate = CLAIMS["finds-circuits"].rule.rules[0]

    assert (rate.low, rate.slack) == (0.3, 0.2)
    assert (rate.node.low, rate.node.node.metric) == (1.0, "circuit_solved")


def test_rules_name_only_what_is_declared(catalogue, unknown_names):
    """Methods, tasks, metrics, clocks and parameters of every cell, as the installed catalogue knows them."""
    assert not catalogue.broken, catalogue.broken
    assert [wrong for claim in PAPER.claims for wrong in unknown_names(claim)] == []


def test_claims_say_where_they_come_from_and_what_is_smaller():
    """A reader must be able to go to the source, and to see what was not checked."""
    for claim in PAPER.claims:
        assert claim.source.startswith("https://")
        assert claim.value
        assert claim.place
        if claim.rule is None:
            continue
        assert claim.scaled_down
        assert claim.unverified
        assert claim.seeds >= 10
        assert len(set(cells(claim.rule))) >= 2


def test_everything_is_declared_on_the_one_track(catalogue):
    """The plugin brings track, tasks and methods; the core knows none of them."""
    assert catalogue.track("boolean").spec is TRACK
    assert {task.track for task in TASKS} == {method.track for method in METHODS} == {"boolean"}
    assert TRACK.matchable == ()
