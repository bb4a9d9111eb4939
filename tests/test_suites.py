"""The shipped suites: each claim that they list can be judged on what they run, and no testable claim is without one."""

from __future__ import annotations

from typing import Any

import pytest

from harness.catalogue import load_catalogue
from harness.claims.deciding import fewest_seeds
from harness.claims.fixing import Protocol, find_protocols
from harness.plan import Here, Matched, Plan, make_plan, match_requests
from harness.records import Trial
from harness.rules import cells
from harness.specs import Claim
from harness.suite import Suite, load_suite, load_suite_text, shipped_suites

CATALOGUE = load_catalogue()
SUITES = {path.stem: load_suite(path, CATALOGUE) for path in shipped_suites()}
LISTED = [(suite, claim) for suite in SUITES.values() for claim in suite.claims]
# Of a claim "because of X": where the ablation is no method of its own, the parameter that takes X away.
SWITCHED_OFF = {
    "boolean_rrr.sparse-by-margin": ("method.sigma", 1000.0),
    "ei_snn.needs-adaptive-stabilisation": ("method.stabilise", "epsilon"),
    "ei_snn.needs-ei-init": ("method.init", "kaiming"),
    "ei_snn.needs-its-first-shunt": ("method.shunt_init", "one"),
    "ei_snn.needs-scaled-gradient": ("method.scale_gradient", False),
    "polycom.because-the-weights-are-learned": ("method.learnable", False),
}


def claim_named(name: str) -> Claim:
    return CATALOGUE.claims[name][1]


def plan_of(suite: Suite) -> Plan:
    """Where widths are matched, the search's first guess stands for its answer: which trials there are does not hang on it."""
    matched = {request.key: Matched(request.start, 1.0, 1.0) for request in match_requests(suite, CATALOGUE)}
    return make_plan(suite, CATALOGUE, Here("2.0", {"cpu": ""}), {}, matched)


def uses_of(suite: Suite) -> list[Trial]:
    """Every use of the suite, as its trial with the first seed; in a tuned suite these wait for what tuning will choose."""
    plan = plan_of(suite)
    trials = (*(p.trial for p in plan.planned), *plan.waiting)
    return [trial for trial in trials if trial.kind == "quality" and trial.seed == suite.seeds[0]]


@pytest.mark.parametrize("suite", [s for s in SUITES.values() if s.claims], ids=lambda s: s.name)
def test_each_listed_claim_can_be_fixed_on_what_the_suite_runs(suite):
    """A cell that the suite lacks, or that two uses fit, or too few seeds, would leave it unfixed for ever."""
    found = list(find_protocols(suite, plan_of(suite), CATALOGUE))

    assert [one for one in found if not isinstance(one, Protocol)] == []
    assert [p.claim for p in found] == list(suite.claims)
    assert all(len(p.seeds) >= fewest_seeds(claim_named(p.claim).rule) for p in found)


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
    (protocol,) = [p for p in find_protocols(suite, plan_of(suite), CATALOGUE) if p.claim == name]
    series = {key for place in protocol.places if place.cell in without for key in place.series}

    assert series
    assert {trial.role for trial in uses_of(suite) if trial.series_key in series} == {"ablation"}


@pytest.mark.parametrize("name", [name for name, suite in SUITES.items() if suite.claims])
def test_a_suite_of_claims_runs_on_embedded_data_and_on_the_cpu(name):
    """Whoever installs the package can run it: no data folder and no GPU. One that needs the folder is named after the data, or
    is the `-full` of one that does not."""
    suite = SUITES[name]
    needed = {d for trial in uses_of(suite) for d in datasets(CATALOGUE.task(trial.task).spec, trial.task_params)}
    absent = {d for d in needed if CATALOGUE.dataset(d).spec.where not in ("embedded", "generated")}
    ends = {f"-{d.partition('/')[0]}" for d in absent}

    for_a_night = name.endswith("-full") and name.removesuffix("-full") in SUITES
    assert for_a_night or all(end in name and name.partition(end)[0] in SUITES for end in ends)
    assert suite.devices == ("cpu",)


def test_no_two_suites_of_claims_share_a_series():
    """What ran before a claim was fixed does not count for it, and what is done is not run again: the claims of the suite that
    runs second would lack the shared trials for ever.
    """
    series = [p.trial.series_key for suite in SUITES.values() if suite.claims for p in plan_of(suite).planned]

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
    found = {(t.method.rpartition("/")[2], t.train["batch"], t.train["lr"]) for t in uses_of(suite) if t.train}

    assert found == {("relu", 128, 0.1), ("relu", 2, 0.0015625), ("gelu", 128, 0.1)}
