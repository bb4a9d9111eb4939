"""Rules that cannot be judged are refused where a plugin is loaded, with all their mistakes, and stop no other."""

from __future__ import annotations

from math import inf, nan

import pytest
from claim_samples import PAPER
from helpers import PluginSite, plugin_site
from invoking import harness

from harness.rules import (
    All,
    AtLeast,
    Cell,
    Corr,
    Diff,
    Every,
    Over,
    Rank,
    Ratio,
    Seeds,
    Share,
    Slope,
    Tasks,
    Within,
    better,
    given,
    mistakes,
    non_inferior,
    solved_share,
)

__all__ = ["plugin_site"]

A, B, C = (Cell(name, "t", "m") for name in "abc")
FINE = better("a", "b", "t", "m")


@pytest.mark.parametrize(
    "rule",
    [
        FINE, non_inferior("a", "b", "t", "m", 0.01, net__arch="mlp"), solved_share("a", "t", "m", 1.0, 0.5),
        All((FINE, AtLeast(1, (FINE, FINE)))), Every(Ratio(A, B), low=1.0, high=1.0), Within(Corr(A, B), low=0.0),
        Within(Seeds(Over((A, Diff(B, C)), "max"), "iqm"), high=1.0), Within(Rank(A, (A, B)), high=1.5),
        Within(Slope(((1.0, A), (2, B))), low=-1, high=1),
        Within(Tasks(tuple(Diff(Cell("a", f"t{i}", "m"), Cell("b", f"t{i}", "m")) for i in range(10))), low=0.0),
        Within(Tasks(tuple(Cell("a", "t", "m", given(task__name=str(i))) for i in range(10)), "mean"), high=1.5),
    ],
)  # fmt: skip
def test_every_word_of_a_rule_passes(rule):
    assert mistakes(rule) == []


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (All(()), ["All(rules=()); give a tuple of at least one rule"]),
        (AtLeast(0, (FINE, FINE)), ["AtLeast(k=0) of 2 rules; give 1 to 2"]),
        (AtLeast(3, (FINE, FINE)), ["AtLeast(k=3) of 2 rules; give 1 to 2"]),
        (All((FINE, A)), ["Cell(method='a'"]),
        (Within(Rank(A, (B, C)), high=1.0), ["Rank: `of` has to be one of `among`"]),
        (Within(Rank(A, (A, B), "most"), high=1.0), ["better='most'"]),
        (Within(A, low=1.0, high=0.0, slack=-1.0), ["has no room; give low < high", "slack=-1.0; give 0 or more"]),
        (Within(A, low=1.0, high=1.0), ["has no room"]),
        (Within(A, low=nan), ["give numbers"]),
        (Within(A), ["has no limit, so that nothing refutes it"]),
        (Every(A, low=-inf, high=inf, at_least=0), ["at_least=0; give 1 or more", "has no limit"]),
        (Every(Share(A, low=0.0), low=0.0), ["is no number here"]),
        (Within(3.0, low=0.0), ["3.0 is no number here"]),
        (Within(Over((), "max"), low=0.0), ["Over(nodes=())"]),
        (Within(Over((A,), "most"), low=0.0), ["Over(how='most'); write one of mean, min, max, median"]),
        (Within(Tasks((A, B)), low=0.0), ["Tasks of 2 numbers decides nothing; give a tuple of 10 at least, one a task"]),
        (Within(Tasks((A,) * 10, "most"), low=0.0), ["Tasks(how='most')", "two numbers are of one task"]),
        (Within(Diff(A, Tasks((A,) * 10)), low=0.0), ["is no number here"]),
        (Within(Slope(((1.0, A),)), low=0.0), ["give two different x at least"]),
        (Within(Slope(((0.0, A), (1.0, B))), low=0.0), ["the logarithm of 0"]),
        (Within(Cell("", "t", "m"), low=0.0), ["Cell(method=''); give a name"]),
        (Within(Cell("a", "t", "m", {"net.arch": "mlp"}), low=0.0), ["Cell(given={'net.arch': 'mlp'})"]),
    ],
)
def test_a_rule_that_cannot_be_judged_or_cannot_fail_is_told_with_its_mend(rule, told):
    """All its mistakes at once."""
    found = mistakes(rule)

    assert len(found) == len(told)
    assert [text for text in told if not any(text in one for one in found)] == []


def test_a_plugin_with_wrong_claims_is_named_with_all_of_it_and_stops_no_other(plugin_site: PluginSite):
    """One third-party claim takes nothing else down."""
    more = "effect=-1.0, extension=-5"
    declared = PAPER.replace("RULE", "harness.All(())").replace("seeds=10", "seeds=0").replace("MORE", more)
    plugin_site.write_toy(declared=declared)
    (broken,) = plugin_site.catalogue().broken
    listed = harness("claims", "crrelu")

    told = (
        "claim 'near-wins'",
        "All(rules=())",
        "seeds=0; give 1 to",
        "extension=-5; give 0 to",
        "effect=-1.0; give a difference",
    )
    assert [text for text in told if text not in broken.error] == []
    assert (listed.code, "crrelu" in listed.out) == (0, True)
