"""SELU's claims: they name what exists, and each can come out both ways."""

from __future__ import annotations

import pytest
from harness_papers.selu import BN, ITEMS, PAPER, RIVALS, tabular, tabular_claims
from harness_papers.selu.tables import EMBEDDED, HUGE_PMLB, LARGE_PMLB, PMLB, PMLB_20, RULES, SMALL_PMLB, TWINS

from harness.claims.deciding import decide
from harness.data import FACTS, dataset
from harness.plan import expand_uses
from harness.rules import Cell, cells
from harness.suite import find_suite, load_suite

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
    assert claim.seeds >= (1 if claim in tabular_claims.CLAIMS else 10)  # over tables the tables are the sample


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


# Over tables ------------------------------------------------------------------------------------------------------------


def nets(snn: float, layers: float = 8.0, **rivals: float):
    """Accuracy by method, 0.9 if not named; hidden layers: 8, of snn `layers`."""
    accuracy = {"snn": snn, **{name.replace("_", "-"): value for name, value in rivals.items()}}

    def value(cell: Cell) -> float:
        if cell.metric == "hidden_layers":
            return layers if cell.method == "snn" else 8.0
        return accuracy.get(cell.method, 0.9)

    return value


OVER_TABLES = {
    "best everywhere": (nets(0.95), "first-on-tables", "supported"),
    "best by rank": (nets(0.95), "best-mean-rank-on-tables", "supported"),
    "all alike": (nets(0.9), "first-on-tables", "inconclusive"),
    "all alike by rank": (nets(0.9), "best-mean-rank-on-pmlb", "inconclusive"),
    "behind one net": (nets(0.95, highway_net=0.96), "first-on-pmlb", "refuted"),
    "behind one net by rank": (nets(0.95, highway_net=0.96), "best-mean-rank-on-pmlb", "refuted"),
    "a forest is no net": (nets(0.95, random_forest=0.99), "first-on-large-pmlb", "supported"),
    "but a peer": (nets(0.95, random_forest=0.99), "beats-forest-and-svm-on-large-pmlb", "refuted"),
    "better than both": (nets(0.95), "beats-forest-and-svm-on-large-pmlb", "supported"),
    "deeper": (nets(0.9, layers=16.0), "chosen-deeper-on-tables", "supported"),
    "shallower": (nets(0.9, layers=4.0), "chosen-deeper-on-small-pmlb", "refuted"),
    "as deep": (nets(0.9), "chosen-deeper-on-large-pmlb", "inconclusive"),
}


def word_of_one_seed(claim: str, value) -> str:
    """The tables are the sample, so one seed decides; many would only cost time."""
    rule = CLAIMS[claim].rule
    return decide(rule, {cell: [value(cell)] for cell in cells(rule)}, {}, 1, alpha=0.05, effect=None)[0]


@pytest.mark.parametrize(("values", "claim", "expected"), OVER_TABLES.values(), ids=OVER_TABLES)
def test_a_rule_over_tables_has_its_signs_right(values, claim, expected):
    assert word_of_one_seed(claim, values) == expected


def test_losing_on_a_few_tables_is_outweighed_by_the_others():
    """Wilcoxon's test: two losses of 20 as large as the gains leave it significant, eight do not."""

    def loses_on(count):
        lost = {f"{cell.task}{cell.given}" for cell in list(dict.fromkeys(cells(CLAIMS["first-on-tables"].rule)))[: 2 * count]}
        return lambda cell: 0.85 if cell.method == "snn" and f"{cell.task}{cell.given}" in lost else nets(0.95)(cell)

    assert word_of_one_seed("first-on-tables", loses_on(2)) == "supported"
    assert word_of_one_seed("first-on-tables", loses_on(8)) == "inconclusive"


def test_each_suite_runs_exactly_the_tables_of_its_claims(catalogue):
    """Twenty, twenty and all; what is tuned, the clock and the methods are the same for all nine methods."""
    wanted = {"tabular": (*EMBEDDED, *RULES), "tabular-pmlb": PMLB_20, "tabular-full": tuple(PMLB)}
    for name, tables in wanted.items():
        suite = load_suite(find_suite(name), catalogue)
        uses = list(expand_uses(suite, catalogue))
        used = {(use.task_params or {}).get("name", use.task.spec.name) for use in uses}
        judged = {cell.method for claim in suite.claims for cell in cells(catalogue.claims[claim][1].rule)}

        assert used == set(tables)
        assert {use.method.spec.name for use in uses} == {spec.name for spec in tabular.LEARNERS} >= judged
        assert suite.tuning is not None
        assert suite.tuning.trials == 8


def test_the_tables_facts_are_those_of_the_data_sets():
    """Rows decide which tables are large; a twin stands for the table whose rows it has."""
    pmlb = {name.removeprefix("pmlb/"): facts for name, facts in FACTS.items() if name.startswith("pmlb/")}

    assert {*PMLB, *TWINS} == set(pmlb)
    assert all(pmlb[name].items == rows for name, rows in PMLB.items())
    assert set(TWINS.values()) <= set(PMLB)
    assert {name: FACTS[name].items for name in EMBEDDED} == EMBEDDED
    assert (len(SMALL_PMLB), len(LARGE_PMLB), len(PMLB_20)) == (55, 43, 20)
    assert sum(PMLB[name] >= 1000 for name in PMLB_20) == 10
    assert all(pmlb[name].items * 0.6 > 8000 for name in HUGE_PMLB)
    assert dataset("pmlb/adult").where == "folder"
