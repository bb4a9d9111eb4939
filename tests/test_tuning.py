"""Tuning: even points, the best by validation, the same chances for all, and never a look at the test part."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import PluginSite, plugin_site, trial  # noqa: F401  (plugin_site is a fixture)
from invoking import harness_process, query

from harness.catalogue import load_catalogue
from harness.errors import SuiteError
from harness.plan import Done, Here, Plan, Selection, make_plan, narrow
from harness.records import Trial
from harness.suite import Dimension, Tuning, load_suite_text
from harness.tuning import BITS, Tried, best, points, sobol, value_at
from harness.worker import WorkerOptions, run_trial

SPACE = {
    "train.lr": Dimension("log", (1e-4, 1e-1)),
    "train.clip": Dimension("linear", (0.0, 2.0)),
    "method.slope": Dimension("linear", (0.0, 0.5)),
}


# Points -----------------------------------------------------------------------------------------------------------------


def test_the_points_are_those_of_torchs_sobol_engine():
    """Two programs that share no line agree on every direction number."""
    ours = torch.tensor(sobol(256, 16), dtype=torch.float64) / 2**BITS
    theirs = torch.quasirandom.SobolEngine(16).draw(256, dtype=torch.float64)

    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_more_dimensions_than_there_are_numbers_for_are_refused():
    with pytest.raises(ValueError, match="17 dimensions; there are direction numbers for 16"):
        sobol(2, 17)


@pytest.mark.parametrize("seed", range(5))
def test_points_cover_each_dimension_evenly_whatever_the_seed(seed):
    """Of 16 points one lies in each sixteenth of a range: that is what they are better for than random ones."""
    tuning = Tuning(16, {name: Dimension("linear", (0.0, 1.0)) for name in SPACE})
    found = points(tuning, list(SPACE), 0, seed)

    for name in SPACE:
        assert sorted(int(point[name] * 16) for point in found) == list(range(16))


def test_methods_meet_the_same_values_where_they_share_a_dimension():
    """A method with a parameter more to tune has no other learning rates than the baseline."""
    tuning = Tuning(8, SPACE)
    plain, more = points(tuning, ["train.lr"], 0, 3), points(tuning, list(SPACE), 0, 3)

    assert [point["train.lr"] for point in plain] == [point["train.lr"] for point in more]


def test_seeds_meet_other_values_and_the_same_ones_each_time():
    tuning = Tuning(8, SPACE)
    found = [
        [point["train.lr"] for point in points(tuning, ["train.lr"], root, seed)] for root, seed in ((0, 0), (0, 1), (1, 0))
    ]

    assert len(set(map(tuple, found))) == 3
    assert found[0] == [point["train.lr"] for point in points(tuning, ["train.lr"], 0, 0)]


@pytest.mark.parametrize(
    ("dimension", "at", "value"),
    [
        (Dimension("log", (1e-4, 1e-2)), 0.5, 1e-3), (Dimension("linear", (-1.0, 3.0)), 0.25, 0.0),
        (Dimension("log", (1e-4, 1e-2)), 1e-12, 1e-4), (Dimension("linear", (0.1234564, 1.0)), 1e-12, 0.1234564),
        (Dimension("values", (16, 32, 64)), 0.34, 32), (Dimension("values", (16, 32, 64)), 0.999999, 64),
    ],
)  # fmt: skip
def test_a_share_of_a_dimension_is_a_value_of_it(dimension, at, value):
    """The middle of a logarithmic range is its geometric mean; no value lies outside."""
    assert value_at(dimension, at) == value


@pytest.mark.parametrize(
    ("scores", "better", "point"),
    [([0.5, 0.9, 0.7], "higher", 1), ([0.5, 0.9, 0.7], "lower", 0), ([None, -3.0, None], "higher", 1),
     ([None, 9e9], "lower", 1), ([0.5, 0.8, 0.8], "higher", 1), ([None, None], "higher", 0)],
)  # fmt: skip
def test_the_best_score_wins_failures_are_worst_and_the_first_of_equals(scores, better, point):
    assert best([Tried(i, {}, score) for i, score in enumerate(scores)], better).point == point


# The plan ---------------------------------------------------------------------------------------------------------------

TUNED = """
schema: harness/suite/1
name: tuned
tasks: [iris]
methods: [{use: relu, role: baseline}, leaky_relu]
net: {arch: mlp, width: 8, depth: 1}
train: {evaluations: 2}
seeds: 2
budget: {steps: 30}
tuning:
  trials: 4
  space: {train.lr: {log: [1e-3, 1e-1]}, method.slope: {linear: [0, 0.5]}}
measure: {quality: [accuracy]}
"""
HERE = Here("2.13.0", {"cpu": ""})


@pytest.fixture(scope="module")
def catalogue():
    return load_catalogue()


def planned(catalogue, text: str = TUNED, done=None, scores=None) -> Plan:
    return make_plan(load_suite_text(text, Path("t.yaml"), catalogue), catalogue, HERE, done or {}, {}, None, scores)


def tuning_trials(plan: Plan) -> list[Trial]:
    return [p.trial for p in plan.planned if p.trial.kind == "tuning"]


def finals(plan: Plan) -> list[Trial]:
    return [p.trial for p in plan.planned if p.trial.kind == "quality"]


def ended(trials, status: str = "ok", quantities=("accuracy",)) -> dict[str, Done]:
    return {t.trial_id: Done(status, frozenset(quantities), wall_s=0.5) for t in trials}


def test_every_method_and_seed_gets_as_many_tuning_trials_and_the_others_wait(catalogue):
    """The baseline gets the same care; what is not chosen yet has no identity yet."""
    plan = planned(catalogue)
    counts = {(t.method, t.seed): 0 for t in tuning_trials(plan)}
    for t in tuning_trials(plan):
        counts[t.method, t.seed] += 1

    assert set(counts.values()) == {4}
    assert len(counts) == 4
    assert len({t.trial_id for t in tuning_trials(plan)}) == len({t.series_key for t in tuning_trials(plan)}) == 16
    assert {p.trial.kind for p in plan.planned} == {"tuning"}
    assert len(plan.waiting) == 4


def test_the_best_point_is_what_the_final_trial_runs_with(catalogue):
    """Chosen by score, recorded with it and with what the tuning cost; a trial that failed counts as worst."""
    trials = tuning_trials(planned(catalogue))
    done = ended(trials) | ended([t for t in trials if t.tuned["point"] == 0], "diverged", ())
    scores = {t.trial_id: t.tuned["point"] / 10 for t in trials if 0 < t.tuned["point"] < 3}  # the last gave no number
    plan = planned(catalogue, done=done, scores=scores)

    assert not plan.waiting
    assert len(finals(plan)) == 4
    for final in finals(plan):
        winner = next(t for t in trials if (t.method, t.seed, t.tuned["point"]) == (final.method, final.seed, 2))
        assert final.tuned == {"point": 2, "values": winner.tuned["values"], "score": 0.2, "metric": "accuracy",
                               "trials": 4, "failed": 2, "cost_s": 2.0}  # fmt: skip
        assert final.settings("train")["lr"] == winner.tuned["values"]["train.lr"]
        assert final.settings("train")["evaluations"] == 2
    assert {t.settings("method").get("slope") is None for t in finals(plan)} == {True, False}


def test_what_was_chosen_changes_the_trial_and_neither_its_series_nor_its_pair(catalogue):
    """Seeds that chose differently stand on one board; both methods of a seed are one pair."""
    trials = tuning_trials(planned(catalogue))
    first, second = (
        finals(planned(catalogue, done=ended(trials), scores={t.trial_id: sign * t.tuned["point"] for t in trials}))
        for sign in (1.0, -1.0)
    )  # fmt: skip

    assert [t.series_key for t in first] == [t.series_key for t in second]
    assert not {t.trial_id for t in first} & {t.trial_id for t in second}
    assert len({t.pair_key for t in first}) == 2  # seeds
    assert all("lr" not in t.train for t in first)
    assert {(t.seed, t.pair_key) for t in trials} == {(t.seed, t.pair_key) for t in first}


def test_the_settings_that_are_tuned_are_no_part_of_any_identity(catalogue):
    """What a suite says of a learning rate that the tuning replaces must orphan nothing."""
    other = TUNED.replace("{evaluations: 2}", "{evaluations: 2, lr: 0.5}")

    assert [t.trial_id for t in tuning_trials(planned(catalogue, other))] == [
        t.trial_id for t in tuning_trials(planned(catalogue))
    ]


def test_a_method_that_no_point_can_run_is_named_and_the_rest_goes_on(catalogue):
    """No part to validate on, a library that is missing: choosing at random instead would look like a tuned result."""
    trials = tuning_trials(planned(catalogue))
    mine = [t for t in trials if t.method.endswith("leaky_relu")]
    plan = planned(catalogue, done=ended(trials) | ended(mine, "unsupported", ()), scores={})

    assert {p.trial.method.rpartition("/")[2] for p in plan.planned if p.trial.kind == "quality"} == {"relu"}
    assert [(n.what, n.trials) for n in plan.notes] == [
        ("leaky_relu cannot be tuned on iris: every tuning trial is unsupported", 2)
    ]
    alone = narrow(plan, Selection(methods=("leaky_relu",), limit=1))  # is no empty selection
    assert {p.state for p in alone.planned} == {"unsupported"}


def test_a_shard_holds_tuning_and_trials_of_a_pair(catalogue):
    """Each machine of a cluster can finish what it has begun."""
    shards = [narrow(planned(catalogue), Selection(shard=(i, 2))) for i in (1, 2)] if distinct(catalogue) else []
    for shard in shards:
        assert {(t.seed, t.method) for t in tuning_trials(shard)} == {
            (seed, method)
            for seed in {t.seed for t in tuning_trials(shard)}
            for method in {t.method for t in tuning_trials(shard)}
        }


def distinct(catalogue) -> bool:
    return len({int(t.pair_key[:8], 16) % 2 for t in tuning_trials(planned(catalogue))}) == 2


@pytest.mark.parametrize("limit", [2, 0.5])
def test_a_limit_counts_what_tuning_is_for_and_brings_along_what_that_needs(catalogue, limit):
    """As tuning stands first, a limit of twenty trials would run it over and over and no pair ever."""
    before = narrow(planned(catalogue), Selection(limit=limit))
    done = ended(tuning_trials(before))
    after = narrow(planned(catalogue, done=done, scores=dict.fromkeys(done, 1.0)), Selection(limit=limit))

    assert {(t.seed, t.method.rpartition("/")[2]) for t in before.waiting} == {(0, "relu"), (0, "leaky_relu")}
    assert (len(tuning_trials(before)), {t.seed for t in tuning_trials(before)}) == (8, {0})
    assert {t.series_key for t in finals(after)} == {t.series_key for t in before.waiting}
    assert not after.waiting
    assert [p.trial.kind for p in after.planned if p.state == "missing"] == ["quality"] * 2


def test_a_timed_trial_brings_along_the_tuning_of_the_first_seed(catalogue):
    """Its settings are chosen there, wherever the limit or the shard puts the two."""
    plan = planned(catalogue, TUNED.replace("[accuracy]}", "[accuracy], timing: [train_step]}"))
    timed = [t for t in plan.waiting if t.kind == "timing"]

    assert {t.method for t in timed} == {t.method for t in tuning_trials(plan)}
    for one in timed:
        part = narrow(plan, Selection(shard=(int(one.pair_key[:8], 16) % 5 + 1, 5)))
        first = {t.trial_id for t in tuning_trials(plan) if (t.seed, t.method) == (0, one.method)}
        assert set(plan.needs[one.series_key]) == first
        assert first <= {t.trial_id for t in tuning_trials(part)}


def test_what_has_nothing_to_tune_runs_as_it_is(catalogue):
    """A space of one method's own parameter leaves the others nothing to choose."""
    plan = planned(catalogue, TUNED.replace("train.lr: {log: [1e-3, 1e-1]}, ", ""))

    assert {t.method.rpartition("/")[2] for t in tuning_trials(plan)} == {"leaky_relu"}
    assert [(p.trial.method.rpartition("/")[2], p.trial.tuned) for p in plan.planned if p.trial.kind == "quality"] == [
        ("relu", None)
    ] * 2


def test_a_matched_method_is_tuned_at_the_width_that_was_found(catalogue):
    """The pair of a matched, tuned trial is the baseline's: neither its width nor its rate is in it."""
    from harness.plan import Matched, match_requests

    text = TUNED.replace("{steps: 30}", "{steps: 30, match: {params: 50%, to: relu}}")
    suite = load_suite_text(text, Path("t.yaml"), catalogue)
    matched = {request.key: Matched(7, 100.0, 98.0) for request in match_requests(suite, catalogue)}
    plan = make_plan(suite, catalogue, HERE, {}, matched)

    assert {t.net["width"] for t in tuning_trials(plan) if t.matched} == {7}
    assert len({t.pair_key for t in tuning_trials(plan)}) == 2
    assert len({t.trial_id for t in tuning_trials(plan)}) == 16


# The suite file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("trials: 4", "trials: 1", r"t\.yaml:11: tuning\.trials: got 1; write a number of at least 2"),
        ("train.lr", "train.lrr", r"t\.yaml:12: tuning\.space\.train\.lrr: nothing here has .*; did you mean 'train.lr'"),
        ("method.slope", "method.width", r"nothing here has a setting 'method.width'"),
        ("{log: [1e-3, 1e-1]}", "{log: [1e-1, 1e-3]}", r"write the lower bound first"),
        ("{log: [1e-3, 1e-1]}", "{log: [0, 1e-1]}", r"a logarithm needs bounds above 0"),
        ("{log: [1e-3, 1e-1]}", "{log: [1e-3, 1e-1], values: [1, 2]}", r"got log and values; write one of them"),
        ("{log: [1e-3, 1e-1]}", "{}", r"got none of log, linear and values"),
        ("{log: [1e-3, 1e-1]}", "{values: [0.1, 0.1]}", r"0\.1 stands at tuning\.space\.train\.lr\.values\[0\] already"),
        ("{linear: [0, 0.5]}", "{values: [high, 0.5]}", r"leaky_relu\.slope: got 'high'; write a number, without quotes"),
        ("train.lr: {log: [1e-3, 1e-1]}", "train.batch: {log: [16, 64]}", r"train\.batch takes no fractions; use values"),
        ("train.lr: {log: [1e-3, 1e-1]}", "train.lr: {linear: [-1, 1]}", r"train\.lr: got -1; write a number greater than 0"),
        ("methods: [", "methods: [{use: leaky_relu, as: two, grid: {slope: [0.1, 0.3]}}, ",
         r"method\.slope is listed at methods\[0\]\.grid\.slope too"),
        ("space:", "metric: accurracy\n  space:", r"no task here ranks by 'accurracy'; did you mean 'accuracy'"),
        ("measure:", "exclude: [{kind: tuning}]\nmeasure:",
         r"t\.yaml:13: exclude\[0\]\.kind: tuning goes with the trials .*; exclude those by method, task or seed, or remove"),
        ("measure:", "exclude: [{kind: tun*}]\nmeasure:", r"exclude\[0\]\.kind: no kind matches 'tun\*'"),
        ("space:", "scope: 1\n  space:", r"tuning\.scope: no such key; did you mean 'space'"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_tuning_is_named_with_its_mend(catalogue, old, new, says):
    """Before anything runs, with the line."""
    with pytest.raises(SuiteError, match=says):
        load_suite_text(TUNED.replace(old, new), Path("t.yaml"), catalogue)


# The worker -------------------------------------------------------------------------------------------------------------

SPY = """
def spy(problem, ctx, params):
    drawn = float(torch.rand((), generator=ctx.generator("order")))
    ctx.log(train=float(problem.x.sum()), draw=drawn, free=float(torch.rand(())))
    ctx.offer(Threshold(0.5))
    return Threshold(0.0)
"""


@pytest.fixture
def played(plugin_site: PluginSite, tmp_path: Path):  # noqa: F811
    """(kind, seed) -> the outcome of a method that tells what it got and drew."""
    plugin_site.write_toy(SPY, ("spy",))
    settings = WorkerOptions(scratch=tmp_path, cache_dir=tmp_path / "cache")
    tuned = {"tuning": {"point": 0, "values": {}}, "quality": None}
    return {
        (kind, seed): run_trial(
            replace(trial("spy", kind=kind, seed=seed), tuned=tuned[kind]), plugin_site.catalogue(), settings
        )
        for kind, seed in itertools.product(("tuning", "quality"), range(3))
    }  # fmt: skip


def test_tuning_and_its_curves_never_see_test_data(played):
    """A tuning trial trains on what its final trial trains on and is scored on the same validation part; the test part of that
    split, drawn by the same stream, is not even kept.
    """
    for seed in range(3):
        tuning, final = played["tuning", seed], played["quality", seed]
        assert tuning.status == final.status == "ok", tuning.error
        assert {m.part for m in tuning.measurements} == {p.part for p in tuning.curve} == {"validation"}
        assert {m.part for m in final.measurements} == {"validation", "test"}
        assert tuning.diagnostics["train"] == final.diagnostics["train"]
        first = {(o is tuning, m.part): m.value for o in (tuning, final) for m in o.measurements if m.quantity == "first"}
        assert first[True, "validation"] == first[False, "validation"] != first[False, "test"]


def test_tuning_draws_from_streams_that_no_final_trial_uses(played):
    """The winner must not have won by the luck that it meets again: initial weights, order and noise are fresh."""
    for name in ("draw", "free"):
        drawn = [outcome.diagnostics[name] for outcome in played.values()]
        assert len(set(drawn)) == len(drawn)


def test_a_task_without_a_validation_part_cannot_be_tuned_on(plugin_site: PluginSite, tmp_path):  # noqa: F811
    """Unsupported, not failed: no point of it could ever be better."""
    code = "def load(params, ctx):\n    x = torch.ones(3)\n    return Instance(Problem(x, x.long()), {'test': (x, x.long())})\n"
    plugin_site.write_toy(code)
    asked = replace(trial("good", kind="tuning"), tuned={"point": 0, "values": {}})
    outcome = run_trial(asked, plugin_site.catalogue(), WorkerOptions(scratch=tmp_path, cache_dir=tmp_path / "c"))

    assert outcome.status == "unsupported"
    assert "holds no part 'validation' (test), so nothing can be tuned on it" in outcome.error


# All of it --------------------------------------------------------------------------------------------------------------


def test_a_tuned_suite_runs_goes_on_where_it_was_cut_and_says_what_it_cost(tmp_path):
    """Tuning trials are recorded as they end; the best on the validation part is chosen; the board tells what it cost."""
    suite, registry = tmp_path / "tuned.yaml", tmp_path / "r"
    suite.write_text(TUNED)

    cut = harness_process("run", suite, "--limit", "2", "--registry", registry, cwd=tmp_path)
    ran = harness_process("run", suite, "--json", "--registry", registry, cwd=tmp_path)
    again = harness_process("run", suite, "--registry", registry, cwd=tmp_path)

    assert (cut.code, ran.code, again.code) == (0, 0, 0), cut.err + ran.err + again.err
    assert "tuning: 8 ok" in cut.err
    assert "tuned: 2 ok; 0 done before" in cut.err
    assert "nothing to run; 4 done before" in again.err
    tried = query(registry, """SELECT m.method, m.seed, m.part, m.value, a.tuned, a.trial_id FROM measurements m
                               JOIN attempts a USING (attempt_id) WHERE a.kind = 'tuning' ORDER BY m.attempt_id""")  # fmt: skip
    finals = query(registry, "SELECT method, seed, tuned, train FROM attempts WHERE kind = 'quality'")
    assert len(tried) == len({row["trial_id"] for row in tried}) == 16
    assert {row["part"] for row in tried} == {"validation"}
    assert query(registry, "SELECT DISTINCT part FROM curves WHERE kind = 'tuning'") == [{"part": "validation"}]
    for final in finals:
        own = [row for row in tried if (row["method"], row["seed"]) == (final["method"], final["seed"])]
        top = max(own, key=lambda row: (row["value"], -decoded(row["tuned"])["point"]))
        assert decoded(final["tuned"])["values"] == decoded(top["tuned"])["values"]
        assert decoded(final["tuned"])["score"] == top["value"]
    [board] = ran.json["boards"]
    assert board["shared"]["tuning"]["trials"] == 4
    assert [(row["n_ok"], row["tuned"]["trials"], row["tuned"]["failed"]) for row in board["rows"]] == [(2, 8, 0)] * 2
    assert all(row["tuned"]["cost_s"] > 0 for row in board["rows"])
    assert "tuned seed by seed on the validation part" in again.out


def test_tuning_trials_that_run_again_choose_again(plugin_site: PluginSite, tmp_path):  # noqa: F811
    """A point that had failed may be the best one: what runs after it must not be the choice of before."""
    code = """
def picky(problem, ctx, params):
    import os
    ctx.spend(steps=1)
    if params.scale > 1.5 and not os.path.exists("MENDED"):
        raise RuntimeError("not mended yet")
    return Threshold(2.0 - params.scale)
""".replace("MENDED", str(tmp_path / "mended"))
    plugin_site.write_toy(code, ("picky",))
    suite, registry = tmp_path / "picky.yaml", tmp_path / "r"
    suite.write_text("""
schema: harness/suite/1
name: picky
tasks: [signs]
methods: [picky]
seeds: 1
budget: {steps: 30}
tuning: {trials: 4, space: {method.scale: {linear: [1, 2]}}}
""")
    chosen = "SELECT tuned FROM attempts WHERE kind = 'quality' ORDER BY attempt_id"

    ran = harness_process("run", suite, "--registry", registry, cwd=tmp_path, **plugin_site.environment)
    (tmp_path / "mended").touch()
    again = harness_process(
        "run", suite, "--retry-failed", "--registry", registry, cwd=tmp_path, **plugin_site.environment
    )  # fmt: skip

    assert (ran.code, again.code) == (0, 0), ran.err + again.err
    first, second = (decoded(row["tuned"]) for row in query(registry, chosen))
    assert (first["failed"], second["failed"]) == (2, 0)
    assert first["values"]["method.scale"] < 1.5 < second["values"]["method.scale"]


def decoded(value):
    import json

    return json.loads(value) if isinstance(value, str) else value
