"""The plan: pure, ordered, honest about what is done, skipped and matched."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.catalogue import Catalogue, Offer, Plugin
from harness.errors import NothingSelected
from harness.plan import Done, Here, Matched, Selection, make_plan, match_requests, narrow, to_run
from harness.specs import Component, Dataset, Learner, Metric, Params, Probe, Task, Track
from harness.suite import load_suite_text

HERE = Here("2.13.0", {"cpu": "", "cuda": "no GPU here"})


class Eps(Params):
    eps: float = 0.01


class Width(Params):
    units: int = 32


@pytest.fixture
def catalogue(tmp_path):
    """A core with one component track and one learner track, and a paper."""
    for name in ("core", "paper"):
        (tmp_path / f"{name}.py").write_text("x = 1\n")
    core = Plugin("core", "builtin", "1", None, tmp_path / "core.py")
    paper = Plugin("papers", "paper", "1", None, tmp_path / "paper.py")
    accuracy = Metric("accuracy", "1", "higher", 0.0)
    gap = Metric("gap", "1", "lower")
    classify = Track("classify", "1", "m:P", "m:S", ("samples_seen", "steps"), "", ("params", "flops"), "m:l", "m:c")
    solve = Track("solve", "1", "m:P", "m:S", ("steps",))
    shape = {"inputs": 4, "outputs": 2, "train_items": 100}
    digits = Task("digits", "classify", (accuracy,), "m:load", "m:score", shape=lambda p: shape, datasets=("digits",))
    puzzle = Task("puzzle", "solve", (gap,), "m:load", "m:score")
    return Catalogue(
        plugins=(core, paper),
        tracks=(Offer(classify, core), Offer(solve, paper)),
        tasks=(Offer(digits, core), Offer(puzzle, paper)),
        methods=(
            Offer(Component("relu", "activation", "m:relu"), core),
            Offer(Component("swoosh", "activation", "m:swoosh", params=Eps), paper),
            Offer(Learner("forest", "classify", "m:forest", params=Width, knob="units", cost="m:cost"), paper),
            Offer(Learner("solver", "solve", "m:solve"), paper),
        ),
        probes=(Offer(Probe("dead", "classify", (Metric("dead_share", "1", "lower"),), "m:dead"), core),),
        datasets=(Offer(Dataset("digits", "embedded", "d" * 64, "", "", ""), core),),
    )


def suite(catalogue, text):
    return load_suite_text(f"schema: harness/suite/1\nname: s\n{text}", Path("s.yaml"), catalogue)


MIXED = """
tasks: [digits, puzzle]
methods: [{use: relu, role: baseline}, {use: swoosh, grid: {eps: [0.1, 0.2]}}, forest, solver]
net: [{arch: mlp, width: 8}, {arch: cnn, width: 4}]
seeds: 3
budget: {samples_seen: 500, steps: 20}
"""


def planned(catalogue, text, done=None, matched=None, here=HERE):
    return make_plan(suite(catalogue, text), catalogue, here, done or {}, matched or {})


def test_components_multiply_with_nets_and_learners_do_not(catalogue):
    """3 uses of components in 2 nets, a learner of the same track once, a learner of another track on its own task."""
    plan = planned(catalogue, MIXED)

    assert len(plan.planned) == (3 * 2 + 1 + 1) * 3
    by_method = {p.trial.method.rpartition("/")[2]: p.trial for p in plan.planned}
    assert by_method["forest"].net is None
    assert by_method["solver"].task == "papers/puzzle"
    assert by_method["relu"].role == "baseline"


def test_a_budget_keeps_the_clocks_of_its_track(catalogue):
    """Samples mean nothing to a puzzle; they must not enter its identity either."""
    plan = planned(catalogue, MIXED)

    assert {tuple(p.trial.budget) for p in plan.planned if p.trial.task == "papers/puzzle"} == {("steps",)}


def test_epochs_become_samples_seen(catalogue):
    """Ten epochs of a hundred items and a thousand samples are the same trial."""
    text = "tasks: [digits]\nmethods: [relu]\nnet: {arch: mlp}\nseeds: 1\n"
    epochs = planned(catalogue, text + "budget: {epochs: 10}")
    samples = planned(catalogue, text + "budget: {samples_seen: 1000}")

    assert epochs.planned[0].trial.trial_id == samples.planned[0].trial.trial_id


def test_whole_pairs_come_first(catalogue):
    """A run that is cut short leaves all methods of the first seeds, not all seeds of the first method."""
    plan = planned(catalogue, MIXED)
    cut = narrow(plan, Selection(limit=8))

    assert [p.trial.seed for p in plan.planned] == sorted(p.trial.seed for p in plan.planned)
    assert {p.trial.seed for p in cut.planned} == {0}
    assert len({p.trial.method for p in cut.planned}) == 4


def test_timing_trials_come_last_in_fresh_processes(catalogue):
    """Three processes a method, no seed axis, after all quality trials."""
    plan = planned(catalogue, MIXED + "measure: {timing: [train_step]}\n")
    kinds = [p.trial.kind for p in plan.planned]

    assert kinds.count("timing") == 8 * 3
    assert kinds == sorted(kinds)  # "quality" < "timing"
    assert {p.trial.measure for p in plan.planned if p.trial.kind == "timing"} == {("train_step",)}


def test_done_is_what_holds_every_quantity(catalogue):
    """A record without a metric that the suite now measures is run again; a failed one only when asked."""
    text = "tasks: [digits]\nmethods: [relu]\nnet: {arch: mlp}\nseeds: 4\nbudget: {steps: 5}\n"
    ids = [p.trial.trial_id for p in planned(catalogue, text).planned]
    done = {
        ids[0]: Done("ok", frozenset({"accuracy"})),
        ids[1]: Done("timeout", frozenset()),
        ids[2]: Done("interrupted", frozenset()),
    }

    plan = planned(catalogue, text, done)
    more = planned(catalogue, text + "measure: {quality: [accuracy, dead_share]}\n", done)

    assert [p.state for p in plan.planned] == ["done", "failed", "missing", "missing"]
    assert more.planned[0].state == "missing"
    assert [t.trial_id for t in to_run(plan, Selection())] == ids[2:]
    assert [t.trial_id for t in to_run(plan, Selection(retry_failed=True))] == ids[1:]
    assert len(to_run(plan, Selection(force=True))) == 4


def test_what_cannot_run_here_is_said_with_the_mend(catalogue):
    """No silent hole in the table: device and data are named, with what to do."""
    text = "tasks: [digits]\nmethods: [relu]\nnet: {arch: mlp}\nseeds: 2\nbudget: {steps: 5}\n"
    cuda = planned(catalogue, text + "devices: [cpu, cuda]\n")
    absent = planned(catalogue, text, here=Here("2.13.0", {"cpu": ""}, frozenset({"digits"})))

    assert len(cuda.planned) == 2
    assert [(n.what, n.trials) for n in cuda.notes] == [("device cuda: no GPU here", 2)]
    assert absent.planned == ()
    assert "data digits not found" in absent.notes[0].what
    assert "--data-dir" in absent.notes[0].mend


def test_exclude_removes_and_nothing_else(catalogue):
    """All entries of one pattern must fit."""
    plan = planned(catalogue, MIXED + "exclude: [{method: swoosh, net.arch: cnn}, {method.eps: 0.2}]\n")
    left = {(p.trial.method_params.get("eps"), p.trial.net["arch"]) for p in plan.planned if p.trial.method == "papers/swoosh"}

    assert left == {(0.1, "mlp")}


def test_a_matched_width_enters_the_trial_but_not_the_pair(catalogue):
    """The rule that found a width is no identity; the width is; pairs ignore it."""
    text = "tasks: [digits]\nmethods: [{use: relu, role: baseline}, swoosh]\nnet: {arch: mlp, width: 8}\nseeds: 1\n"
    text += "budget: {steps: 5, match: {params: 5%, to: relu}}\n"
    requests = match_requests(suite(catalogue, text), catalogue)
    found = {requests[0].key: Matched(7, 100.0, 98.0)}

    relu, swoosh = sorted(planned(catalogue, text, matched=found).planned, key=lambda p: p.trial.method)
    unmatched = planned(catalogue, text.replace(", match: {params: 5%, to: relu}", "").replace("width: 8", "width: 7"))

    assert len(requests) == 1
    assert (swoosh.trial.net["width"], swoosh.trial.matched["mismatch"]) == (7, pytest.approx(-0.02))
    assert relu.trial.matched is None
    plain = next(p.trial for p in unmatched.planned if p.trial.method == "papers/swoosh")
    assert swoosh.trial.trial_id == plain.trial_id


def test_a_component_matched_to_a_baseline_pairs_with_it(catalogue):
    """Without that, a match would make comparison impossible instead of fair."""
    text = "tasks: [digits]\nmethods: [{use: relu, role: baseline}, swoosh]\nnet: {arch: mlp, width: 8}\nseeds: 1\n"
    text += "budget: {steps: 5, match: {params: 5%, to: relu}}\n"
    requests = match_requests(suite(catalogue, text), catalogue)
    plan = planned(catalogue, text, matched={requests[0].key: Matched(7, 100.0, 98.0)})

    assert len({p.trial.pair_key for p in plan.planned}) == 1


def test_a_method_that_cannot_be_matched_is_left_out_aloud(catalogue):
    """The reason of the search reaches the user."""
    text = "tasks: [digits]\nmethods: [{use: relu, role: baseline}, swoosh]\nnet: {arch: mlp, width: 8}\nseeds: 2\n"
    text += "budget: {steps: 5, match: {params: 5%, to: relu}}\n"
    request = match_requests(suite(catalogue, text), catalogue)[0]

    plan = planned(catalogue, text, matched={request.key: Matched(None, 100.0, 200.0, "too big")})

    assert {p.trial.method for p in plan.planned} == {"core/relu"}
    assert plan.notes[0].trials == 2
    assert "swoosh cannot be matched" in plan.notes[0].what
    assert "too big" in plan.notes[0].what


def test_the_plan_is_pure(catalogue):
    """Equal inputs, equal plans, in equal order."""
    assert planned(catalogue, MIXED) == planned(catalogue, MIXED)


def test_the_order_of_the_file_changes_no_identity(catalogue):
    """Methods, tasks and seeds may be written in any order."""
    other = """
seeds: [2, 0, 1]
budget: {steps: 20, samples_seen: 500}
methods: [solver, forest, {use: swoosh, grid: {eps: [0.2, 0.1]}}, {use: relu, role: baseline}]
net: [{width: 4, arch: cnn}, {width: 8, arch: mlp}]
tasks: [puzzle, digits]
"""
    assert [p.trial.trial_id for p in planned(catalogue, other).planned] == [
        p.trial.trial_id for p in planned(catalogue, MIXED).planned
    ]


def test_shards_part_the_plan_and_keep_pairs_whole(catalogue):
    """Each pair in one shard, each trial in exactly one."""
    plan = planned(catalogue, MIXED)
    shards = []
    for i in (1, 2, 3):
        try:
            shards.append(narrow(plan, Selection(shard=(i, 3))))
        except NothingSelected:
            continue
    pairs = [{p.trial.pair_key for p in s.planned} for s in shards]

    assert sorted(p.trial.trial_id for s in shards for p in s.planned) == sorted(p.trial.trial_id for p in plan.planned)
    assert sum(len(p) for p in pairs) == len(set().union(*pairs))


def test_filters_that_leave_nothing_say_so(catalogue):
    """Exit code 4, not an empty success."""
    with pytest.raises(NothingSelected, match="24 trials, and the filters leave none"):
        narrow(planned(catalogue, MIXED), Selection(methods=("nope*",)))


def test_predictions_come_from_siblings_where_a_seed_never_ran(catalogue):
    """Another seed of the same method takes about as long."""
    text = "tasks: [digits]\nmethods: [relu]\nnet: {arch: mlp}\nseeds: 2\nbudget: {steps: 5}\n"
    first = planned(catalogue, text).planned[0].trial

    plan = make_plan(suite(catalogue, text), catalogue, HERE, {}, {}, {first.series_key: 3.0})

    assert [p.predicted_s for p in plan.planned] == [3.0, 3.0]
    assert plan.predicted_s == 6.0


def test_a_learner_without_a_knob_cannot_be_matched(catalogue):
    """The others run all the same; the mend is in the note."""
    bare = Offer(Learner("tree", "classify", "m:t"), catalogue.plugins[1])
    wider = Catalogue(**{f: getattr(catalogue, f) for f in ("plugins", "tracks", "tasks", "probes", "datasets")},
                      methods=(*catalogue.methods, bare))  # fmt: skip
    text = "tasks: [digits]\nmethods: [{use: relu, role: baseline}, tree]\nnet: {arch: mlp}\n"
    text += "budget: {steps: 5, match: {params: 5%, to: relu}}\n"

    plan = make_plan(suite(wider, text), wider, HERE, {}, {})

    assert match_requests(suite(wider, text), wider) == []
    assert {p.trial.method for p in plan.planned} == {"core/relu"}
    assert plan.notes[0].what == "tree cannot be matched on digits: the learner declares no knob and no cost"
    assert plan.notes[0].mend == "give it both, or exclude it"


def test_what_of_the_flops_was_counted_stands_in_the_trial_and_in_no_identity(catalogue):
    """A formula more or less changes what is known of a match, not what ran."""
    text = "tasks: [digits]\nmethods: [{use: relu, role: baseline}, swoosh]\nnet: {arch: mlp, width: 8}\nseeds: 1\n"
    text += "budget: {steps: 5, match: {flops: 5%, to: relu}}\n"
    [request] = match_requests(suite(catalogue, text), catalogue)

    whole = Matched(7, 100.0, 98.0, counted=1.0, target_counted=1.0)
    part = Matched(7, 100.0, 98.0, counted=0.9, target_counted=1.0, uncounted=("x.y",))
    trials = [
        next(p.trial for p in planned(catalogue, text, matched={request.key: m}).planned if p.trial.matched)
        for m in (whole, part)
    ]

    assert request.unit == "flops"
    assert [(t.matched["counted"], t.matched["uncounted"]) for t in trials] == [(1.0, []), (0.9, ["x.y"])]
    assert trials[0].trial_id == trials[1].trial_id
