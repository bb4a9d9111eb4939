"""The shipped suites: each claim that they list can be judged on what they run, and no testable claim is without one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.catalogue import Catalogue, load_catalogue
from harness.plan import Here, Use, budget_of, excluded, expand_uses, fits, make_plan, names_of
from harness.rules import Cell, cells
from harness.specs import Claim
from harness.suite import Suite, load_suite, load_suite_text, shipped_suites

CATALOGUE = load_catalogue()
SUITES = {path.stem: load_suite(path, CATALOGUE) for path in shipped_suites()}
LISTED = [(suite, claim) for suite in SUITES.values() for claim in suite.claims]
# Of a claim "because of X": where the ablation is no method of its own, the parameter that takes X away.
SWITCHED_OFF = {
    "boolean_rrr.sparse-by-margin": ("method.sigma", 1000.0),
    "polycom.because-the-weights-are-learned": ("method.learnable", False),
}


def claim_named(name: str) -> Claim:
    return CATALOGUE.claims[name][1]


def named_uses(suite: Suite, catalogue: Catalogue = CATALOGUE) -> Iterator[tuple[Use, dict[str, Any]]]:
    """Every use that the suite runs, with all that a cell may say of it."""
    for use in expand_uses(suite, catalogue):
        names = names_of(use, kind="quality")
        if not excluded(names, suite.exclude):
            yield use, names | {f"budget.{unit}": amount for unit, amount in budget_of(use, suite).items()}


def uses_of(cell: Cell, suite: Suite) -> list[Use]:
    """The uses of the suite that the cell can mean."""
    wanted = {"method": cell.method, "task": cell.task, **dict(cell.given)}
    return [use for use, names in named_uses(suite) if all(fits(names, name, value) for name, value in wanted.items())]


def measured(suite: Suite, cell: Cell) -> bool:
    """Whether the suite asks for the cell's metric, or for all."""
    return suite.measure.quality is None or cell.metric in suite.measure.quality


@pytest.mark.parametrize(("suite", "name"), LISTED, ids=[f"{s.name}-{c}" for s, c in LISTED])
def test_each_cell_of_a_listed_claim_is_one_use_of_the_suite_and_its_metric_is_measured(suite, name):
    """A claim is fixed on exact series: a cell that the suite lacks, or that two uses fit, leaves it unfixed for ever."""
    named = list(dict.fromkeys(cells(claim_named(name).rule)))
    found = {cell: uses_of(cell, suite) for cell in named}

    assert named
    assert {cell: len(uses) for cell, uses in found.items() if len(uses) != 1} == {}
    assert [cell for cell in named if not measured(suite, cell)] == []


@pytest.mark.parametrize(("suite", "name"), LISTED, ids=[f"{s.name}-{c}" for s, c in LISTED])
def test_a_suite_has_the_seeds_that_its_claims_are_looked_at_with(suite, name):
    """With fewer the claim would not be fixed."""
    assert len(suite.seeds) >= claim_named(name).seeds >= 10


def test_every_claim_that_has_a_rule_stands_in_a_shipped_suite():
    """Else `harness claims` could name no command that would settle it."""
    listed = {name for suite in SUITES.values() for name in suite.claims}
    testable = {name for name, (_, claim) in CATALOGUE.claims.items() if claim.rule is not None}

    assert testable - listed == set()
    assert listed - testable == set()


def test_every_claim_without_a_rule_names_what_is_missing():
    """Not testable here: that is an answer only with the missing resource named; with a rule nothing is."""
    assert [name for name, (_, claim) in CATALOGUE.claims.items() if bool(claim.missing) == (claim.rule is not None)] == []


@pytest.mark.parametrize("name", [name for name, (_, claim) in CATALOGUE.claims.items() if claim.because])
def test_a_claim_of_a_cause_is_run_with_and_without_it(name):
    """A cause X is shown by nothing but the ablation without it: a use of the suite that the rule names, and no baseline."""
    claim = claim_named(name)
    suite = next(suite for suite in SUITES.values() if name in suite.claims)
    without = [cell for cell in cells(claim.rule) if cell.method == claim.because]
    if name in SWITCHED_OFF:
        without = [cell for cell in without if SWITCHED_OFF[name] in cell.given]

    assert without
    assert {use.role for cell in without for use in uses_of(cell, suite)} == {"ablation"}


@pytest.mark.parametrize("name", [name for name, suite in SUITES.items() if suite.claims])
def test_a_suite_of_claims_runs_on_embedded_data_and_on_the_cpu(name):
    """Whoever installs the package can run it: no data folder and no GPU."""
    suite = SUITES[name]
    tasks = {use.task.name: use.task.spec for use, _ in named_uses(suite)}
    needed = {d for t in suite.tasks for d in datasets(tasks[t.use], t.params)}

    assert {CATALOGUE.dataset(d).spec.where for d in needed} <= {"embedded", "generated"}
    assert suite.devices == ("cpu",)


def test_no_two_suites_of_claims_share_a_series():
    """What ran before a claim was fixed does not count for it, and what is done is not run again: the claims of the suite that
    runs second would lack the shared trials for ever.
    """
    here = Here("2.0", {"cpu": ""})
    series = [
        p.trial.series_key
        for suite in SUITES.values()
        if suite.claims
        for p in make_plan(suite, CATALOGUE, here, {}, {}).planned
    ]

    assert len(series) == len(set(series)) > 1000


def datasets(task: Any, params: Any) -> tuple[str, ...]:
    return task.datasets if isinstance(task.datasets, tuple) else task.datasets(task.params(**params))


# A list of trainings ----------------------------------------------------------------------------------------------------------

TWO_BATCHES = """\
schema: harness/suite/1
name: batches
tasks: [digits]
methods: [relu, gelu]
net: {arch: mlp}
seeds: 1
budget: {epochs: 1}
train:
  - {batch: 128, lr: 0.1}
  - {batch: 2, lr: 0.0015625}
exclude:
  - {method: gelu, train.batch: 2}
"""


def test_a_list_of_trainings_multiplies_and_exclude_can_name_them():
    """A claim about batch sizes needs both sizes in one suite."""
    suite = load_suite_text(TWO_BATCHES, "batches.yaml", CATALOGUE)
    found = [(use.method.name, use.train.batch, use.train.lr) for use, _ in named_uses(suite)]

    assert found == [("relu", 128, 0.1), ("relu", 2, 0.0015625), ("gelu", 128, 0.1)]
