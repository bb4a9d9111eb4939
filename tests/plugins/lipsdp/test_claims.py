"""The declarations: nothing heavy is imported, claims name what exists, and every rule can come out both ways."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from math import prod
from pathlib import Path

import numpy as np
import pytest
from claim_samples import found, trial_of
from harness_papers.lipsdp import METHODS, PAPER, TASKS, TRACK, RandomNet
from harness_papers.lipsdp.nets import METRICS
from harness_papers.lipsdp.problems import Bound, NormProduct
from harness_papers.lipsdp.tasks import load_random_net, score
from registry_samples import WHERE

from harness import Invalid
from harness.catalogue import load_catalogue
from harness.claims.fixing import Protocol, fix
from harness.claims.judging import judge_claims
from harness.provenance import new_id
from harness.records import Attempt, Measurement, Outcome
from harness.registry import Registry
from harness.rules import cells

ROOT = Path(__file__).parents[3]

CLAIMS = {claim.name: claim for claim in PAPER.claims}


def test_importing_the_plugin_imports_nothing_heavy():
    """`harness list` over all papers must stay fast: declarations need neither torch nor a solver nor NumPy."""
    code = (
        "import sys, harness_papers.lipsdp\n"
        "print(sorted({'torch', 'cvxpy', 'clarabel', 'scs', 'scipy', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_loading_the_method_imports_no_solver():
    """cvxpy takes a second; only a trial that needs it pays."""
    code = "import sys, harness_papers.lipsdp.method, harness_papers.lipsdp.tasks\nprint('cvxpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_the_installed_plugin_is_whole():
    """Through its entry point: one paper, one track, its tasks and methods; each code string can be resolved."""
    points = importlib.metadata.entry_points(group="harness", name="lipsdp")
    catalogue = load_catalogue(points)

    assert catalogue.broken == ()
    assert [o.name for o in catalogue.papers] == ["lipsdp"]
    assert catalogue.track("certify").spec is TRACK
    named = [TRACK.problem, TRACK.solution, *(m.solve for m in METHODS), *(t.load for t in TASKS), *(t.score for t in TASKS)]
    for name in named:
        module, _, attribute = name.partition(":")
        assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_name_methods_tasks_metrics_and_parameters_that_exist(name):
    """A rule about something that nothing offers could never be judged."""
    methods, tasks = {m.name: m for m in METHODS}, {t.name: t for t in TASKS}
    for cell in cells(CLAIMS[name].rule):
        task, method = tasks[cell.task], methods[cell.method]
        given = {group: {} for group in ("task", "method")}
        for path, value in cell.given:
            group, _, key = path.partition(".")
            given[group][key] = value

        assert cell.metric in {m.name for m in task.metrics}
        task.params(**given["task"])  # raises for an unknown key or a value out of range
        method.params(**given["method"])


@pytest.mark.parametrize("name", [name for name, claim in CLAIMS.items() if claim.rule is not None])
def test_claims_have_the_seeds_to_be_judged(name):
    """Ten pairs is the least that a verdict takes."""
    assert CLAIMS[name].seeds >= 10
    assert CLAIMS[name].source.startswith("https://")


# method -> bound, where the depth of the task does not matter
AS_PUBLISHED = {"lipsdp-neuron": 36.482, "lipsdp-layer": 39.839, "norm-product": 43.306, "sampled-lower-bound": 10.0}


def test_the_published_numbers_support_the_claims_about_one_net(verdict):
    """The paper's own example: each rule says of it what the paper says."""
    value = lambda cell: AS_PUBLISHED[cell.method]  # noqa: E731

    names = ("ordered", "sound", "tighter-than-norm-product")
    assert {name: verdict(CLAIMS[name].rule, value) for name in names} == dict.fromkeys(names, "supported")


@pytest.mark.parametrize(
    ("claim", "method", "value"),
    [
        ("ordered", "lipsdp-neuron", 39.9),
        ("ordered", "lipsdp-layer", 43.4),
        ("sound", "sampled-lower-bound", 36.5),
        ("tighter-than-norm-product", "lipsdp-neuron", 37.0),
    ],
)
def test_each_rule_can_fail(claim, method, value, verdict):
    """One number moved to the wrong side."""
    assert verdict(CLAIMS[claim].rule, lambda cell: {**AS_PUBLISHED, method: value}[cell.method]) == "refuted"


@pytest.mark.parametrize("name", ["sound", "nsr-sound"])
def test_a_bound_that_was_not_proved_refutes_soundness(name, verdict):
    """Where no trial is left out, and none failed, `certified` is 1 everywhere."""
    values = {"bound": 2.0, "lower_bound": 1.0}

    assert verdict(CLAIMS[name].rule, lambda cell: {**values, "certified": 1.0}[cell.metric]) == "supported"
    assert verdict(CLAIMS[name].rule, lambda cell: {**values, "certified": [1.0] * 9 + [0.0]}[cell.metric]) == "refuted"


UNSOUND = lambda problem: Bound(0.5 * prod(np.linalg.norm(w, 2) for w in problem.weights) / 10, "upper", NormProduct())  # noqa: E731


@pytest.mark.parametrize(("method", "word"), [(None, "supported"), (UNSOUND, "refuted")])
def test_one_trial_of_an_unsound_method_refutes_soundness(method, word, tmp_path, make_ctx):
    """Its score is no number but `invalid`: from the suite to the verdict, that must not be a hole in the claim.

    method: in place of lipsdp-neuron at one seed of ten.
    """
    text, name = (ROOT / "suites" / "certify.yaml").read_text(), "lipsdp.sound"
    catalogue, registry = load_catalogue(), Registry.open(tmp_path / "r")
    (one,) = (p for p in found(catalogue, text) if isinstance(p, Protocol) and p.claim == name)
    fix([one], registry, "certify")
    owed = tuple(Measurement(m.name, "test", m.unit, m.better, None, m.worst) for m in METRICS)
    series = {key: (place, seed) for place in one.places for seed, key in zip(one.all_seeds, place.series, strict=True)}
    for key, (place, seed) in series.items():
        values = {"bound": 2.0, "lower_bound": 1.0, "certified": 1.0}
        status, measured = "ok", tuple(replace(m, value=values[m.quantity]) for m in owed if m.quantity in values)
        if method is not None and seed == one.all_seeds[3] and place.cell.method == "lipsdp-neuron":
            params = RandomNet(dims="2-10-30-20-2", samples=100)
            held = load_random_net(params, make_ctx(stage="load"))
            with pytest.raises(Invalid):
                score(held.held["test"], method(held.problem), params, None)
            status, measured = "invalid", ()
        trial = trial_of(place, seed, key, measure=("bound", "certified", "lower_bound"))
        outcome = Outcome(status, measurements=measured, started_at=datetime.now(UTC).isoformat(timespec="microseconds"))
        registry.append(Attempt(new_id(), trial, outcome, WHERE, declared=owed))

    (judged,) = judge_claims(registry, catalogue, [name], {name: "certify"})

    assert judged.word == word, (judged.reason, judged.missing)


@pytest.mark.parametrize(("growth", "holds"), [(1.5, "supported"), (0.5, "refuted")])
def test_the_gap_s_trend_has_its_sign_right(growth, holds, verdict):
    """norm product over bound as growth^depth."""

    def value(cell):
        depth = dict(cell.given)["task.depth"]
        return growth**depth if cell.method == "norm-product" else 1.0

    assert verdict(CLAIMS["gap-grows-with-depth"].rule, value) == holds


# method -> (bound, how it grows with depth): the paper's net of 18 layers, each layer alike
GROUPS = {"lipsdp-nsr": 17432 ** (1 / 18), "norm-product": 73405 ** (1 / 18), "lipsdp-rr": 50000 ** (1 / 18),
          "sampled-lower-bound": 267 ** (1 / 18)}  # fmt: skip
NSR = ("nsr-below-norm-product", "nsr-below-norm-product-in-linf", "nsr-sound", "nsr-not-above-residual-form",
       "nsr-far-below-at-18-layers")  # fmt: skip


def of_groups(changed=None):
    """Values of the cells of NSR's claims; changed: (method, depth) -> factor on its value."""
    factors = changed or {}

    def value(cell):
        depth = dict(cell.given)["task.depth"]
        return GROUPS[cell.method] ** depth * factors.get((cell.method, depth), 1.0)

    return value


@pytest.mark.parametrize("name", NSR)
def test_the_published_numbers_support_the_claims_about_sorting_nets(name, verdict):
    """The paper's deepest l2 net, taken apart into layers."""
    assert verdict(CLAIMS[name].rule, of_groups()) == "supported"


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("nsr-below-norm-product", {("lipsdp-nsr", 5): 1.5}),  # above the product at one depth
        ("nsr-below-norm-product", {("norm-product", 2): 50.0}),  # the gap shrinks
        ("nsr-below-norm-product-in-linf", {("lipsdp-nsr", 8): 3.0}),
        ("nsr-sound", {("sampled-lower-bound", 8): 1e3}),
        ("nsr-not-above-residual-form", {("lipsdp-rr", 2): 0.5}),
        ("nsr-far-below-at-18-layers", {("lipsdp-nsr", 18): 1.01}),
    ],
)
def test_each_rule_about_sorting_nets_can_fail(name, changed, verdict):
    """One number moved to the wrong side."""
    assert verdict(CLAIMS[name].rule, of_groups(changed)) == "refuted"


@pytest.mark.parametrize(
    ("nsr", "residual", "word"),
    [(1.0, 2**0.5, "supported"), (1.001, 2**0.5, "refuted"), (1.0, 1.3, "refuted"), (1.0, 1.5, "refuted")],
)
def test_the_claim_about_maxmin_alone_asks_for_both_numbers(nsr, residual, word, verdict):
    values = {"lipsdp-nsr": nsr, "lipsdp-rr": residual}

    assert verdict(CLAIMS["residual-form-cannot-see-maxmin"].rule, lambda cell: values[cell.method]) == word


def test_every_claim_has_a_rule_and_l_infinity_asks_for_l_infinity():
    assert [name for name, claim in CLAIMS.items() if claim.rule is None] == []
    norms = {dict(cell.given)["task.norm"] for cell in cells(CLAIMS["nsr-below-norm-product-in-linf"].rule)}
    assert norms == {"linf"}
