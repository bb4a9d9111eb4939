"""Fixing a claim: what its digest covers, what cannot be fixed and why, that the earliest fixing counts, also after a merge."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from claim_samples import RULE, SUITE, found, protocol, write_paper, write_suite
from helpers import PluginSite, plugin_site
from invoking import harness, harness_process, query

from harness.claims.fixing import KIND, Fixing, Unfixed, fix, fixings, from_facts, to_facts
from harness.provenance import new_id
from harness.registry import Registry

__all__ = ["plugin_site"]


# What the digest covers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        ('harness.better("near", "far", "signs", "accuracy", by=0.01)', ""),
        ('harness.better("far", "near", "signs", "accuracy")', ""),
        (RULE, "extension=5"),
        (RULE, "effect=0.01"),
    ],
)
def test_an_edited_claim_has_another_digest(plugin_site: PluginSite, rule, more):
    """Whoever has seen the numbers could move a limit, or say that a smaller effect would have been enough."""
    before = protocol(write_paper(plugin_site))
    after = protocol(write_paper(plugin_site, rule, more))

    assert before.digest != after.digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{steps: 20}", "{steps: 21}"),
        ("seeds: 10", "seeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]"),
        ("seeds: 10", "seeds: 10\nroot_seed: 1"),
        ("seeds: 10", "seeds: 10\ndtype: float64"),
        ("seeds: 10", "seeds: 10\nthreads: 2"),
        ("[signs]", "[{use: signs, params: {items: 201}}]"),
        ("{use: far, role: baseline}", "{use: far, role: baseline, params: {scale: 1.5}}"),
    ],
)
def test_an_edited_suite_has_another_digest(plugin_site: PluginSite, old, new):
    """Budget, seeds, dtype, threads, task, parameters: the claim is judged on exactly these series."""
    catalogue = write_paper(plugin_site)

    assert protocol(catalogue).digest != protocol(catalogue, SUITE.replace(old, new)).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: toys", "name: other\ntitle: other words"),
        ("seeds: 10", "seeds: 12"),
        ("seeds: 10", "seeds: [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]"),
        ("[near, {use: far, role: baseline}, {use: breaks, role: ablation}]", "[good, far, {use: near, role: control}]"),
    ],
)
def test_what_changes_no_trial_of_the_claim_leaves_its_digest(plugin_site: PluginSite, old, new):
    """Titles, order, further methods and seeds beyond those that the claim names."""
    catalogue = write_paper(plugin_site)

    assert protocol(catalogue).digest == protocol(catalogue, SUITE.replace(old, new)).digest


def test_a_claims_words_may_be_corrected(plugin_site: PluginSite):
    """What decides is the rule; where the paper says it is found out later, or better."""
    before = protocol(write_paper(plugin_site))
    after = protocol(write_paper(plugin_site, more='scaled_down="everything", unverified=("the paper",)'))

    assert before.digest == after.digest


def test_the_seeds_of_an_extension_are_fixed_with_the_claim(plugin_site: PluginSite):
    """The suite's next ones, then those that follow: the same before and after the suite is run with more seeds."""
    catalogue = write_paper(plugin_site, more="extension=5")
    short, long = protocol(catalogue), protocol(catalogue, SUITE.replace("seeds: 10", "seeds: 15"))

    assert (short.seeds, short.extension) == (tuple(range(10)), tuple(range(10, 15)))
    assert short.digest == long.digest
    assert all(len(place.series) == 15 for place in short.places)


def test_a_protocol_holds_the_series_of_the_plans_trials(plugin_site: PluginSite):
    """Each cell of the rule, seed by seed, and nothing of the methods that it does not name."""
    one = protocol(write_paper(plugin_site))

    assert [place.cell.method for place in one.places] == ["near", "far"]
    assert len({key for place in one.places for key in place.series}) == 20


# What cannot be fixed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SUITE.replace("seeds: 10", "seeds: 9"), "it is looked at with 10 seeds, and the suite has 9"),
        (SUITE.replace("[near, ", "["), "no trial of the suite is near on signs"),
        (SUITE.replace("[accuracy]", "[first]"), "the suite does not measure accuracy, which near on signs needs"),
        (SUITE + "exclude: [{method: near, seed: 3}]\n", "the suite leaves out seeds 3 of near on signs"),
        (
            SUITE.replace("[near, ", "[{use: near, grid: {scale: [1.0, 2.0]}}, "),
            "2 methods, nets or budgets of the suite fit near on signs; it must be one",
        ),
        (SUITE + "devices: [cuda]\n", "the suite has no trial on cuda here"),
    ],
)
def test_a_claim_that_the_suite_does_not_make_definite_is_not_fixed_and_says_why(plugin_site: PluginSite, text, reason):
    """A claim is judged on exact series: what could be two things, or is not there, is no series."""
    (one,) = found(write_paper(plugin_site), text)

    assert isinstance(one, Unfixed)
    assert reason in one.reasons


def test_a_number_in_the_middle_of_a_trial_is_refused_not_read_at_its_end(plugin_site: PluginSite):
    """A verdict on another number than the rule names would look like an answer."""
    rule = 'harness.Within(harness.Cell("near", "signs", "accuracy", at="half"), low=0.5)'
    (one,) = found(write_paper(plugin_site, rule), SUITE)

    assert isinstance(one, Unfixed)
    assert "near on signs is read at 'half'" in one.reasons[0]


def test_a_claim_without_a_rule_names_what_is_missing(plugin_site: PluginSite):
    (one,) = found(write_paper(plugin_site, "None", 'missing="a telescope"'))

    assert isinstance(one, Unfixed)
    assert one.reasons == ("it is not testable here: a telescope",)


# In the registry ------------------------------------------------------------------------------------------------------


def test_fixing_again_writes_nothing_and_the_first_time_counts(plugin_site: PluginSite, tmp_path):
    """Otherwise each run would make all attempts before it too old."""
    one = protocol(write_paper(plugin_site))
    registry = Registry.open(tmp_path / "r")
    (first,) = fix([one], registry, "toys")
    (again,) = fix([one], registry, "other")

    assert first == again
    assert len(list((tmp_path / "r" / "facts").iterdir())) == 1
    assert fixings(registry) == [first]


def test_the_earliest_fixing_counts_whoever_merges_with_whom(plugin_site: PluginSite, tmp_path):
    """Two machines fix the same claim on their own; the union is no conflict, and it is the same in either direction."""
    one = protocol(write_paper(plugin_site))
    here, there = Registry.open(tmp_path / "here"), Registry.open(tmp_path / "there")
    later = Fixing(one, "toys", datetime.now(UTC) + timedelta(days=1))
    (early,) = fix([one], here, "toys")
    there.keep_facts(KIND, new_id(), to_facts(later))
    assert fixings(there) == [later]
    assert here.merge(tmp_path / "there").fact_conflicts == []
    assert there.merge(tmp_path / "here").fact_conflicts == []

    assert fixings(here) == fixings(there) == [early]


def test_a_fixing_comes_back_from_its_file_as_it_was(plugin_site: PluginSite):
    """Given values keep their types, infinities and tuples come through JSON."""
    fixed_at = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
    fixing = Fixing(protocol(write_paper(plugin_site, more="effect=0.5")), "toys", fixed_at, ("my/toys.yaml", "--seeds", "10"))

    assert from_facts(json.loads(json.dumps(to_facts(fixing)))) == fixing


@pytest.mark.parametrize(
    "forge",
    [
        lambda facts: facts["terms"]["rule"].update(low=-1.0),
        lambda facts: facts["cells"][0]["series"].reverse(),
        lambda facts: facts["cells"][0]["shared"].update(dtype="float64"),
        lambda facts: facts.update(cells=[]),
        lambda facts: facts.update(fixed_at="yesterday"),
        lambda facts: facts.update(cells=7),
        lambda facts: facts.pop("seeds"),
    ],
)
def test_a_fact_that_does_not_bear_out_its_digest_is_left_out_and_named(plugin_site: PluginSite, tmp_path, forge):
    """A rule that was eased in the file, series that are not those of its trials, or anything else of this kind."""
    facts = json.loads(json.dumps(to_facts(Fixing(protocol(write_paper(plugin_site)), "toys", datetime.now(UTC)))))
    forge(facts)
    registry = Registry.open(tmp_path / "r")
    registry.keep_facts(KIND, "forged", facts)

    assert fixings(registry) == []
    assert any("'forged' fixes no claim" in warning for warning in registry.warnings)


def test_a_run_fixes_the_claims_before_its_first_trial_and_says_so(plugin_site: PluginSite, tmp_path):
    """The whole suite's, also where only a part of it is run; `plan` then tells how far each has come."""
    write_paper(plugin_site)
    suite, registry = write_suite(tmp_path), tmp_path / "r"

    planned = harness("plan", suite, "--registry", registry)
    ran = harness_process(
        "run", suite, "--registry", registry, "-m", "near", "-j", "2", cwd=tmp_path, **plugin_site.environment
    )
    again = harness("plan", suite, "--registry", registry)
    told = harness("plan", suite, "--registry", registry, "--json").json["claims"]
    (row,) = query(registry, "SELECT min(a.started_at) > min(c.fixed_at) AS after, count(*) AS n, count(DISTINCT c.protocol) "
                             "AS protocols FROM v_claims AS c JOIN attempts AS a USING (series_key)")  # fmt: skip

    assert ran.code == 0, ran.err
    assert "claim toypaper.near-wins" in planned.out
    assert "not fixed yet" in planned.out
    assert "0 of 20 trials have an attempt since" in ran.err
    assert "10 of 20 trials have an attempt since" in again.out
    assert [(one["wanted"], one["counting"], one["older"]) for one in told] == [(20, 10, 0)]
    assert row == {"after": True, "n": 10, "protocols": 1}


@pytest.mark.parametrize("part", [("-m", "near"), ("--shard", "1/2")])
def test_a_tuned_suite_fixes_its_claims_before_tuning_whatever_part_runs(plugin_site: PluginSite, tmp_path, part):
    """What would run later, elsewhere or with settings not chosen yet has its series already."""
    write_paper(plugin_site)
    whole = SUITE.replace(", {use: breaks, role: ablation}", "")
    tuned = whole + "tuning: {trials: 2, space: {method.scale: {linear: [0.5, 1.5]}}}\n"
    suite, registry = write_suite(tmp_path, tuned), tmp_path / "r"

    planned = harness("plan", suite, "--registry", registry)
    ran = harness_process("run", suite, "--registry", registry, "-j", "2", *part, cwd=tmp_path, **plugin_site.environment)
    told = harness("plan", suite, "--registry", registry, "--json").json["claims"]
    (times,) = query(registry, "SELECT min(a.started_at) > min(c.fixed_at) AS after, count(DISTINCT c.protocol) AS protocols "
                               "FROM v_claims AS c, attempts AS a WHERE a.kind = 'tuning'")  # fmt: skip

    assert ran.code == 0, ran.err
    assert "2 cells x 10 seeds on cpu, not fixed yet" in planned.out
    assert times == {"after": True, "protocols": 1}
    assert told[0]["counting"] > 0
    assert told[0]["older"] == 0


def test_what_ran_before_the_claim_was_fixed_does_not_count_and_the_plan_says_what_to_do(plugin_site: PluginSite, tmp_path):
    """Done trials are not run again by themselves: the claim would wait for them for ever."""
    write_paper(plugin_site)
    suite, registry = write_suite(tmp_path, SUITE.replace("claims:", "# claims:")), tmp_path / "r"
    harness_process("run", suite, "--registry", registry, "-m", "near", cwd=tmp_path, **plugin_site.environment)
    write_suite(tmp_path)
    harness_process("run", suite, "--registry", registry, "-m", "far", cwd=tmp_path, **plugin_site.environment)
    planned = harness("plan", suite, "--registry", registry)

    assert "10 of 20 trials have an attempt since; 10 ran before and do not count: `harness run --force`" in planned.out


@pytest.mark.parametrize(
    "facts", [{}, 7, {"claim": ["x"], "cells": 1}, {"cells": [{"series": ["k"], "cell": 3}], "seeds": "x"}]
)
def test_a_strangers_fact_of_another_shape_breaks_no_query(tmp_path, facts):
    """It is no fixing; what of it can be shown is."""
    registry = Registry.open(tmp_path / "r")
    registry.keep_facts(KIND, "strange", facts)

    assert len(query(tmp_path / "r", "SELECT * FROM v_claims")) == ("series" in str(facts))
    assert fixings(registry) == []
