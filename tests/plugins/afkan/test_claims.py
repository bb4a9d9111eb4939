"""AF-KAN's claims: they name what exists, each can come out both ways, and a shipped suite fixes each."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness_papers.afkan import CHANGES, CONTROLS, DEFAULTS, ITEMS, KANS, PAPER, PLAIN, LayerParams

from harness.rules import Cell
from harness.suite import load_suite

CLAIMS = {claim.name: claim for claim in PAPER.claims}
TESTABLE = [claim for claim in PAPER.claims if claim.rule is not None]
SUITES = sorted(Path(__file__).parents[3].glob("suites/afkan*.yaml"))


def default(cell: Cell) -> bool:
    given = dict(cell.given)
    return cell.method == "afkan" and all(given[f"method.{name}"] == value for name, value in DEFAULTS.items())


def values(ours: float, others: float = 0.9, **by_method: float):
    """The value of the default, of named methods, and of all else."""
    return lambda cell: ours if default(cell) else by_method.get(cell.method.replace("-", "_"), others)


def by_scaling(sample: float, batch: float, none: float):
    return lambda cell: {"sample": sample, "batch": batch, "none": none}[dict(cell.given)["method.func_norm"]]


def one_change_wins(cell: Cell) -> float:
    return 0.92 if dict(cell.given)["method.func"] == "cubic2" else 0.9


@pytest.mark.parametrize("claim", PAPER.claims, ids=CLAIMS)
def test_every_cell_names_what_is_declared(claim, unknown_names):
    """A rule about a method, metric or clock that nothing offers could never be judged."""
    assert unknown_names(claim) == []


@pytest.mark.parametrize("claim", TESTABLE, ids=[claim.name for claim in TESTABLE])
def test_a_claim_says_what_is_smaller_and_what_is_not_verified(claim):
    """A verdict on digits is not one on Fashion-MNIST."""
    assert claim.scaled_down
    assert claim.unverified
    assert claim.seeds >= 10


CASES = {
    "above both controls": (values(0.95), "beats-layernorm-mlp", "supported"),
    "above one control only": (values(0.95, layernorm_silu=0.96), "beats-layernorm-mlp", "refuted"),
    "as the controls": (values(0.9), "beats-layernorm-mlp", "inconclusive"),
    "above both controls on mnist": (values(0.95), "beats-layernorm-mlp-on-mnist", "supported"),
    "below on mnist": (values(0.85), "beats-layernorm-mlp-on-mnist", "refuted"),
    "below on fashion-mnist": (values(0.85), "beats-layernorm-mlp-on-fashion-mnist", "refuted"),
    "above on fashion-mnist": (values(0.95), "beats-layernorm-mlp-on-fashion-mnist", "supported"),
    "above the plain nets": (values(0.95), "beats-plain-mlp", "supported"),
    "below relu": (values(0.95, relu=0.96), "beats-plain-mlp", "refuted"),
    "above the small kans": (values(0.95), "beats-kans", "supported"),
    "below fastkan": (values(0.95, fastkan=0.96), "beats-kans", "refuted"),
    "below fastkan on mnist": (values(0.95, fastkan=0.96), "beats-kans-on-mnist", "refuted"),
    "0.2 points below the wide kans": (values(0.898), "close-to-wide-kans", "supported"),
    "half a point below": (values(0.895), "close-to-wide-kans", "refuted"),
    "half a point below on mnist": (values(0.895), "close-to-wide-kans-on-mnist", "refuted"),
    "no batch, no loss": (by_scaling(0.9, 0.9, 0.9), "needs-no-batch", "supported"),
    "no batch, a point less": (by_scaling(0.89, 0.9, 0.9), "needs-no-batch", "refuted"),
    "scaling helps": (by_scaling(0.9, 0.9, 0.8), "because-of-func-norm", "supported"),
    "scaling hurts": (by_scaling(0.9, 0.9, 0.95), "because-of-func-norm", "refuted"),
    "single items as many": (lambda cell: 0.9, "same-for-single-items", "supported"),
    "single items worse": (lambda c: 0.9 if c.metric == "together_accuracy" else 0.88, "same-for-single-items", "refuted"),
    "single items better": (lambda c: 0.9 if c.metric == "together_accuracy" else 0.92, "same-for-single-items", "refuted"),
    "dearer": (values(5e5, others=3e4), "costs-more", "supported"),
    "cheaper than one": (values(5e5, others=3e4, silu=6e5), "costs-more", "refuted"),
    "no setting is better": (values(0.9, others=0.9), "default-is-best", "supported"),
    "cubic2 is better": (one_change_wins, "default-is-best", "refuted"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "claim", "expected"), CASES.values(), ids=CASES)
def test_a_rule_has_its_signs_right(value, claim, expected, verdict):
    """Made-up values on both sides of each threshold."""
    assert verdict(CLAIMS[claim].rule, value) == expected


def test_the_default_of_the_rules_is_the_declaration_s():
    assert LayerParams().model_dump() == DEFAULTS


def test_every_other_choice_of_the_paper_is_tried():
    """Against each function, activation, reduction and norm that there is."""
    for name in ("func", "act", "reduction", "norm"):
        choices = LayerParams.model_fields[name].annotation.__args__
        assert {*CHANGES[name], DEFAULTS[name]} == set(choices)


def test_the_budget_is_sixty_passes_over_digits(catalogue):
    task = catalogue.task("digits").spec
    assert task.shape(task.params())["train_items"] == ITEMS
    assert all(catalogue.method(name) for name in (*CONTROLS, *PLAIN, *KANS))


def test_every_claim_has_a_suite_of_its_own_draws(catalogue):
    """Two suites with the same trials would run one of them before the other's claims are fixed."""
    suites = [load_suite(path, catalogue) for path in SUITES]

    named = [claim for suite in suites for claim in suite.claims]
    assert sorted(named) == sorted(f"afkan.{claim.name}" for claim in TESTABLE)
    assert len({suite.root_seed for suite in suites}) == len(suites)
