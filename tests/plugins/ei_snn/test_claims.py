"""The claims about spiking nets: they name what exists, each can come out both ways, and what is compared is comparable."""

from __future__ import annotations

import pytest
from harness_papers.ei_snn import BatchNormParams, CircuitParams
from harness_papers.ei_snn.claims import EPOCHS, ITEMS, MATCHED, MNIST_ITEMS, PAPER, POINTS, WHOLE, WIDE, WIDTH
from harness_papers.ei_snn.learners import cost

from harness.rules import Cell, cells

CLAIMS = {claim.name: claim for claim in PAPER.claims}
TESTABLE = [claim for claim in PAPER.claims if claim.rule is not None]


def made_up(**values: float):
    """Accuracy by what a cell is of: ei_4, bn_8, bn_4_wide, plain_8_default, ei_kaiming, ei_False. Not named: 0.9."""

    def value(cell: Cell) -> float:
        given = dict(cell.given)
        kind, depth = cell.method.removesuffix("-snn"), given["method.depth"]
        changed = [str(given[f"method.{name}"]) for name, whole in WHOLE.items() if given.get(f"method.{name}", whole) != whole]
        if kind == "ei":
            names = [f"ei_{changed[0]}" if changed else f"ei_{depth}"]
        elif kind == "bn":
            names = [f"bn_{depth}" if given["method.width"] in (WIDTH, WIDE) else f"bn_{depth}_wide", f"bn_{depth}"]
        else:
            names = [f"plain_{depth}_{given['method.init'].replace('-', '_')}", f"plain_{given['method.init']}"]
        return next((values[name] for name in names if name in values), 0.9)

    return value


@pytest.mark.parametrize("claim", PAPER.claims, ids=CLAIMS)
def test_every_cell_names_what_is_declared(claim, unknown_names):
    """A rule about a method, metric or parameter that nothing offers could never be judged."""
    assert unknown_names(claim) == []


@pytest.mark.parametrize("claim", TESTABLE, ids=[claim.name for claim in TESTABLE])
def test_a_claim_says_what_is_smaller_and_what_is_not_verified(claim):
    assert "CIFAR-10" in claim.scaled_down
    assert claim.unverified
    assert claim.seeds >= 10


WITHIN, WIDER, ALONE, DEEP, MNIST = (
    "within-two-points-of-batch-norm", "within-two-points-when-wider", "not-by-initial-values-alone", "depth-does-not-break-it",
    "within-two-points-on-mnist",
)  # fmt: skip
ABLATIONS = {
    "kaiming": "needs-ei-init", "one": "needs-its-first-shunt", "epsilon": "needs-adaptive-stabilisation",
}  # fmt: skip
CASES = {
    "as good": (made_up(), WITHIN, "supported"),
    "a point below": (made_up(ei_8=0.9 - POINTS / 2), WITHIN, "supported"),
    "three points below at one depth": (made_up(ei_8=0.9 - 1.5 * POINTS), WITHIN, "refuted"),
    "three points below the wider net only": (made_up(bn_4_wide=0.9 + 1.5 * POINTS), WITHIN, "refuted"),
    "wider, as good": (made_up(), WIDER, "supported"),
    "wider, three points below at one depth": (made_up(ei_4=0.9 - 1.5 * POINTS), WIDER, "refuted"),
    "wider, three points below as many parameters only": (made_up(bn_8_wide=0.9 + 1.5 * POINTS), WIDER, "refuted"),
    "plain nets fail": (made_up(plain_default=0.1), "plain-nets-fail-with-depth", "supported"),
    "plain nets fail at 8 only": (made_up(plain_8_default=0.1), "plain-nets-fail-with-depth", "refuted"),
    "better than living plain nets": (made_up(ei_4=0.92, ei_8=0.92), ALONE, "supported"),
    "no better": (made_up(), ALONE, "inconclusive"),
    "one initialisation does as well at one depth": (made_up(ei_4=0.92, ei_8=0.92, plain_8_balanced=0.93), ALONE, "refuted"),
    "depth costs nothing": (made_up(), DEEP, "supported"),
    "depth costs": (made_up(ei_16=0.8), DEEP, "refuted"),
    "depth costs less to batch norm": (made_up(bn_16=0.95), DEEP, "refuted"),
    "as good on mnist": (made_up(plain_8_default=0.1), MNIST, "supported"),
    "a plain net does better on mnist": (made_up(plain_8_default=0.91), MNIST, "refuted"),
    "batch norm does better on mnist": (made_up(bn_8=0.95, plain_8_default=0.1), MNIST, "refuted"),
    **{f"needed: {without}": (made_up(**{f"ei_{without}": 0.5}), name, "supported") for without, name in ABLATIONS.items()},
    **{f"harmful: {without}": (made_up(**{f"ei_{without}": 0.95}), name, "refuted") for without, name in ABLATIONS.items()},
    "needed: scaled gradient": (made_up(ei_False=0.5), "needs-scaled-gradient", "supported"),
    "harmful: scaled gradient": (made_up(ei_False=0.95), "needs-scaled-gradient", "refuted"),
}


@pytest.mark.parametrize(("values", "claim", "expected"), CASES.values(), ids=CASES)
def test_a_rule_has_its_signs_right(values, claim, expected, verdict):
    """Made-up accuracies on both sides of each threshold."""
    assert verdict(CLAIMS[claim].rule, values) == expected


def test_the_budgets_are_the_passes_that_are_told(catalogue):
    """The numbers of train items are written into the declaration; here they are compared with the tasks'."""
    for name, params, items in (("digits", {}, ITEMS), ("mnist", {"subset": MNIST_ITEMS}, MNIST_ITEMS)):
        task = catalogue.task(name).spec
        assert task.shape(task.params(**params))["train_items"] == items
    seen = {
        dict(cell.given)["budget.samples_seen"] for claim in TESTABLE for cell in cells(claim.rule) if cell.task == "digits"
    }
    assert seen == {EPOCHS * ITEMS}


@pytest.mark.parametrize(("task", "depth", "width"), MATCHED, ids=str)
def test_the_wider_nets_with_batch_norm_have_as_many_parameters(task, depth, width, catalogue):
    """Within a hundredth: else the circuits' fourth more would be an advantage."""
    spec = catalogue.task(task).spec
    shape = spec.shape(spec.params(**({"subset": MNIST_ITEMS} if task == "mnist" else {})))

    circuits = cost("ei", shape, CircuitParams(width=width, depth=depth, batch=2))["params"]
    wider = cost("bn", shape, BatchNormParams(width=MATCHED[task, depth, width], depth=depth, batch=2))["params"]

    assert wider == pytest.approx(circuits, rel=0.01)
