"""Boards from sample attempts in a real registry: who is compared with whom, what counts, what is left out; and drawing."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import leaderboard_row_by_row
import pyarrow as pa
import pytest
from invoking import harness, harness_process
from registry_samples import MACHINE, WHERE, flip_a_bit, make_attempt, make_trial
from rich.console import Console

from harness.cli import boards as drawn_boards
from harness.cli import drawing
from harness.leaderboard import SHARED, Board, Chosen, Metric, Row, make_leaderboards, with_labels
from harness.plan import Note, Plan, Planned
from harness.records import Attempt, Measurement, Provenance, Resources, Timing, Trial
from harness.registry import Registry, schema
from harness.registry.files import content_name
from harness.showing import interval_text
from harness.stats import Interval, t_interval

BETTER = {"accuracy": ("higher", 0.0), "error": ("lower", 1.0), "nll": ("lower", None), "width": ("neither", None)}


class Filled:
    """A registry that a test fills: `add` numbers the attempts in the order of the calls."""

    def __init__(self, path: Path) -> None:
        self.registry = Registry.open(path)
        self.number = 0

    def add(
        self, method: str, values: Iterable[Any], *, where: Provenance = WHERE, owed: tuple[str, ...] = ("accuracy",),
        **changes: Any,
    ) -> None:  # fmt: skip
        """One attempt a seed: a number is an accuracy, a mapping is metrics by name, a word is a status."""
        for seed, value in enumerate(values):
            given = value if isinstance(value, dict) else {"accuracy": value}
            status = value if isinstance(value, str) else "ok"
            found = () if status != "ok" else tuple(measured(name, v) for name, v in given.items())
            self.append(trial(method, seed, **changes), status=status, measurements=found, where=where, owed=owed)

    def append(self, one: Trial, *, owed: tuple[str, ...] = ("accuracy",), **outcome: Any) -> Attempt:
        self.number += 1
        attempt = make_attempt(self.number, one, **outcome)
        return self.registry.append(replace(attempt, declared=tuple(measured(name, None) for name in owed)))

    def boards(
        self, baseline: str | None = None, trial_ids: Iterable[str] | None = None, chosen: Chosen | None = None
    ) -> list[Board]:
        return make_leaderboards(self.registry, trial_ids, MACHINE, baseline, chosen, with_ids=True)

    def board(self, baseline: str | None = None) -> Board:
        [board] = self.boards(baseline)
        return board


def measured(name: str, value: float | None, part: str = "test") -> Measurement:
    better, worst = BETTER[name]
    return Measurement(name, part, "1", better, value, worst)


def trial(method: str, seed: int, **changes: Any) -> Trial:
    """A trial whose keys follow from what it is, as the plan makes them. method: a name of the core's, or a reference."""
    from harness.identity import pair_key, series_key, trial_id

    made = make_trial(method, seed, **changes)
    made = replace(made, method=method) if "/" in method else made
    fields = dict(made.__dict__)
    return replace(made, series_key=series_key(fields), trial_id=trial_id(fields), pair_key=pair_key(fields))


def row(board: Board, method: str) -> Row:
    [found] = [r for r in board.rows if r.method == method]
    return found


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    return Filled(tmp_path / "registry")


# Order and differences ----------------------------------------------------------------------------------------------------


def test_the_best_is_first_by_the_metrics_own_direction(filled):
    """Higher accuracy is better, lower error is better."""
    for task, metric in (("paper-harness/a", "accuracy"), ("paper-harness/b", "error")):
        for method, value in (("relu", 0.2), ("silu", 0.9), ("tanh", 0.5)):
            filled.add(method, [{metric: value}, {metric: value}], task=task, owed=(metric,))

    by_task = {b.task: [r.method for r in b.rows] for b in filled.boards()}

    assert by_task == {"a": ["silu", "tanh", "relu"], "b": ["relu", "tanh", "silu"]}


def test_the_difference_to_the_baseline_is_taken_seed_by_seed(filled):
    """Seeds vary together: the paired interval excludes 0 although the two intervals overlap widely."""
    filled.add("relu", [0.1, 0.5, 0.9], role="baseline")
    filled.add("silu", [0.12, 0.53, 0.92])

    board = filled.board()

    assert board.baseline == "relu"
    assert row(board, "relu").difference is None
    expected = t_interval([0.02, 0.03, 0.02])
    difference = row(board, "silu").difference
    assert (difference.mean, difference.low, difference.n) == pytest.approx((expected.mean, expected.low, 3))
    assert difference.low > 0
    assert row(board, "silu").interval.low < row(board, "relu").interval.mean


def test_only_seeds_that_both_have_are_paired(filled):
    """A method that ran fewer seeds is compared over those."""
    filled.add("relu", [0.1, 0.5, 0.9], role="baseline")
    filled.add("silu", [0.2, 0.6])

    assert row(filled.board(), "silu").difference.n == 2
    assert row(filled.board(), "silu").difference.mean == pytest.approx(0.1)


def test_the_rank_follows_the_first_metric_that_has_a_direction(filled):
    """A metric that is neither good nor bad cannot rank, wherever the task lists it."""
    filled.add("relu", [{"width": 3.0, "accuracy": 0.4, "error": 0.6}], owed=("width", "accuracy", "error"))

    board = filled.board()

    assert board.metric == Metric("accuracy", "1", "higher")
    assert [m.name for m in board.further] == ["error", "width"]
    assert row(board, "relu").others == {"error": 0.6, "width": 3.0}


def test_only_the_test_part_ranks(filled):
    """Validation steers training, so it may not decide."""
    both = (measured("accuracy", 0.9, "validation"), measured("accuracy", 0.3))
    filled.append(trial("relu", 0), measurements=both)

    assert row(filled.board(), "relu").interval.mean == 0.3


# Ranks --------------------------------------------------------------------------------------------------------------------


def test_a_method_is_ranked_behind_another_only_where_their_difference_is_beyond_doubt(filled):
    """The best mean is no first place: what 5 seeds do not tell apart is tied."""
    noise = (0.0, 0.02, -0.01, 0.01, -0.02)
    filled.add("silu", [0.80 + e for e in noise])
    filled.add("gelu", [0.79 - e for e in noise])
    filled.add("relu", [0.40 + e / 2 for e in noise], role="baseline")
    filled.add("oracle", [1.0] * 5, role="oracle")
    filled.add("crash", ["failed"] * 5)

    board = filled.board()

    assert [(r.method, r.rank) for r in board.rows] == [
        ("silu", (1, 2)), ("gelu", (1, 2)), ("relu", (3, 3)), ("oracle", None), ("crash", None)
    ]  # fmt: skip


def test_seeds_of_two_root_seeds_share_no_board(filled, monkeypatch):
    """They share no pair: a method would be best by a difference to nothing."""
    filled.add("relu", [0.5, 0.6], role="baseline")
    filled.add("silu", [0.7, 0.8], root_seed=1706)

    boards = filled.boards()

    assert [(b.shared["root_seed"], [r.method for r in b.rows]) for b in boards] == [(0, ["relu"]), (1706, ["silu"])]
    assert [title.rpartition(" | ")[2] for title in drawn_boards.titles(boards)] == ["root seed 0", "root seed 1706"]
    assert "root seed" not in drawn(boards[:1], monkeypatch)
    assert "root seed 1706" in " ".join(drawn(boards, monkeypatch).split())


def test_scores_stand_seed_by_seed_in_one_order_for_all_rows(filled):
    """Who compares two rows needs to know which scores belong together."""
    filled.add("relu", [0.1, 0.2, 0.3])
    filled.add("silu", [0.5, 0.6])

    scores = {r.method: r.scores for r in filled.board().rows}

    assert sorted(s - r for s, r in zip(scores["silu"], scores["relu"], strict=True) if s == s) == pytest.approx([0.4, 0.4])
    assert sum(math.isnan(s) for s in scores["silu"]) == 1


def test_chosen_methods_are_ranked_among_themselves_and_the_baseline_stays(filled):
    """A difference to the baseline needs the baseline; the others are then not even in the family of comparisons."""
    for method, value in (("relu", 0.1), ("silu", 0.2), ("elu", 0.3), ("d/elu", 0.4)):
        filled.add(method, [value + seed / 100 for seed in range(6)], role="baseline" if method == "relu" else "method")

    [board] = filled.boards(chosen=Chosen(methods=("paper-harness/e*", "nothing")))

    assert [(r.method, r.rank) for r in board.rows] == [("paper-harness/elu", (1, 1)), ("relu", (2, 2))]
    assert filled.boards(chosen=Chosen(methods=("nothing",))) == []


def test_boards_of_chosen_tasks_and_devices(filled):
    for task in ("d/one", "d/two"):
        for device in ("cpu", "cuda"):
            filled.add("relu", [0.1], task=task, device=device)

    chosen = filled.boards(chosen=Chosen(tasks=("t*",), devices=("cuda",)))

    assert [(b.shared["task"], b.shared["device"]) for b in chosen] == [("d/two", "cuda")]


# Failures -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["failed", "timeout", "oom", "diverged", "invalid"])
def test_a_failure_counts_as_the_declared_worst(filled, status):
    """Otherwise a method that crashes on hard seeds would look better than one that finishes them."""
    filled.add("relu", [0.8, status])

    found = row(filled.board(), "relu")

    assert (found.interval.mean, found.interval.n) == (0.4, 2)
    assert (found.n_ok, found.n_failed) == (1, 1)
    assert found.ranked


def test_a_metric_without_a_worst_leaves_failures_out(filled):
    """No number is sound where a loss has no bound; the counts say that something is missing."""
    filled.add("relu", [{"nll": 2.0}, "diverged"], owed=("nll",))

    found = row(filled.board(), "relu")

    assert (found.interval.mean, found.interval.n) == (2.0, 1)
    assert (found.n_ok, found.n_failed) == (1, 1)


def test_a_method_without_one_finished_trial_has_no_rank(filled):
    """It stands last with its worst, and drawn without a number."""
    filled.add("tanh", ["failed", "failed"])
    filled.add("relu", [0.0, 0.0])

    board = filled.board()

    assert [(r.method, r.ranked) for r in board.rows] == [("relu", True), ("tanh", False)]


def test_what_is_unsupported_is_counted_and_not_scored(filled):
    """A norm that an MLP cannot hold has not failed."""
    filled.add("relu", [0.5])
    filled.add("norm", ["unsupported", "unsupported"])

    found = row(filled.board(), "norm")

    assert (found.n_ok, found.n_failed, found.n_unsupported, found.interval, found.ranked) == (0, 0, 2, None, False)


def test_the_latest_attempt_counts_but_not_an_interrupted_or_unsupported_one(filled):
    """Ctrl-C, or a missing library today, says nothing about what was measured yesterday."""
    for value in (0.1, 0.6, "interrupted", "unsupported"):
        filled.add("relu", [value])

    found = row(filled.board(), "relu")

    assert (found.interval.mean, found.n_ok, found.n_unsupported) == (0.6, 1, 0)


def test_an_oracle_is_scored_and_not_ranked(filled):
    """It knows what no method may know: a bound, not a rival."""
    filled.add("oracle", [1.0, 1.0], role="oracle")
    filled.add("relu", [0.5, 0.5])

    board = filled.board()

    assert [(r.method, r.ranked) for r in board.rows] == [("relu", True), ("oracle", False)]
    assert row(board, "oracle").interval.mean == 1.0


# Who shares a board -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"torch_version": "2.14.0"}, {"dtype": "float64"}, {"threads": 4}, {"device": "cuda"}, {"budget": {"steps": 5.0}},
        {"net": {"arch": "cnn", "width": 8}}, {"train": {"lr": 0.1}}, {"task_params": {"fraction": 0.5}},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_only_what_agrees_is_pooled(filled, changes):
    """Two numbers that differ in more than the method cannot be compared by it."""
    filled.add("relu", [0.5, 0.5])
    filled.add("silu", [0.9, 0.9], **changes)

    boards = filled.boards()

    assert sorted([r.method for r in b.rows] for b in boards) == [["relu"], ["silu"]]


def test_another_machine_is_left_out(filled):
    """Its records may lie in the same registry after a merge."""
    filled.add("relu", [0.5])
    filled.add("silu", [0.9], where=replace(WHERE, machine="m-2"))

    assert [r.method for r in filled.board().rows] == ["relu"]


def test_a_board_may_be_of_chosen_trials(filled):
    """A suite's leaderboard shows the suite's trials, whatever else the registry holds."""
    filled.add("relu", [0.5, 0.7])
    filled.add("silu", [0.9])

    [board] = filled.boards(trial_ids={trial("relu", 1).trial_id})

    assert [(r.method, r.interval.mean) for r in board.rows] == [("relu", 0.7)]


def test_no_attempts_make_no_boards(filled):
    assert filled.boards() == []
    assert filled.boards(trial_ids=set()) == []


MATCHED = {"where": "net.width", "value": 32, "to": "paper-harness/relu", "unit": "params", "target": 100, "got": 98,
           "mismatch": -0.02, "net": {"arch": "mlp", "width": 64}, "train": {"lr": 0.001}}  # fmt: skip


def test_a_matched_trial_shares_the_baselines_board_and_pairs_with_it(filled):
    """Its own width differs because the harness chose it: that is the fair comparison, with the mismatch shown."""
    filled.add("relu", [0.5, 0.7], role="baseline")
    filled.add("maxout", [0.6, 0.8], net={"arch": "mlp", "width": 32}, matched=MATCHED)
    forest = {**MATCHED, "where": "method.trees", "mismatch": 0.01}
    filled.add("forest", [0.4, 0.6], net=None, train=None, matched=forest, method_params={"trees": 7})

    board = filled.board()

    assert [r.method for r in board.rows] == ["maxout", "relu", "forest"]
    assert row(board, "maxout").difference.mean == pytest.approx(0.1)
    assert row(board, "forest").difference.n == 2
    assert [row(board, m).mismatch for m in ("relu", "maxout", "forest")] == [None, -0.02, 0.01]


def test_without_match_learners_and_components_do_not_meet(filled):
    """A learner brings its own net; only an explicit match makes the two comparable."""
    filled.add("relu", [0.5])
    filled.add("forest", [0.9], net=None, train=None)

    assert len(filled.boards()) == 2


# Names --------------------------------------------------------------------------------------------------------------------


def test_parameters_that_vary_are_in_the_label_and_others_are_not(filled):
    """Two uses of one method are two rows, told apart by what differs."""
    for alpha in (0.1, 0.2):
        filled.add("elu", [alpha], method_params={"alpha": alpha, "inplace": False})
    filled.add("relu", [0.0], method_params={"slope": 0.0})

    assert [r.method for r in filled.board().rows] == ["elu(alpha=0.2)", "elu(alpha=0.1)", "relu"]


def test_a_matched_knob_is_not_in_the_label(filled):
    """It follows from the method; two tasks that match it to different values are still one method."""
    for seed, trees in enumerate((7, 9)):
        one = trial(
            "forest", seed, net=None, train=None, matched={**MATCHED, "where": "method.trees"}, method_params={"trees": trees}
        )
        filled.append(one, measurements=(measured("accuracy", 0.5),))

    assert [(r.method, r.n_ok) for r in filled.board().rows] == [("forest", 2)]


def test_equal_names_of_two_distributions_are_told_apart(filled):
    """Two plugins may call something swish."""
    filled.add("one/swish", [0.5])
    filled.add("two/swish", [0.6])

    assert [r.method for r in filled.board().rows] == ["two/swish", "one/swish"]


def test_the_baseline_is_the_asked_one_else_the_matched_one_else_the_first_of_that_role(filled):
    """One rule, so that the same board always shows the same difference."""
    filled.add("tanh", [0.1], role="baseline")
    filled.add("relu", [0.2], role="method")
    filled.add("silu", [0.3], role="baseline")
    assert filled.board().baseline == "silu"
    assert filled.board("paper-harness/tanh").baseline == "tanh"
    assert filled.board("paper-harness/absent").baseline == "silu"

    filled.add("maxout", [0.6], net={"arch": "mlp", "width": 32}, matched=MATCHED)
    assert filled.board().baseline == "relu"


def test_without_a_baseline_there_is_no_difference(filled):
    filled.add("relu", [0.5, 0.6])
    filled.add("silu", [0.5, 0.6])

    board = filled.board()

    assert board.baseline == ""
    assert {r.difference for r in board.rows} == {None}


# What else a row says -----------------------------------------------------------------------------------------------------


def test_timings_are_of_fresh_processes_and_of_timing_trials_only(filled):
    """Each process gives its median; their spread is what tells doubt. A quality trial's own seconds are indicative."""
    filled.add("relu", [0.5])
    for seed, samples in enumerate([(1.0, 2.0, 9.0), (3.0,), (4.0, 6.0)]):
        timing = Timing("train_step", samples, samples, 1, "precise")
        filled.append(trial("relu", seed, kind="timing"), timings=(timing,), measurements=(), owed=())
    filled.append(trial("relu", 3, kind="timing"), status="failed", owed=())

    found = row(filled.board(), "relu")

    assert found.timings == {"train_step": (2.0, 3.0, 5.0)}
    assert (found.n_ok, found.n_failed) == (1, 0)


def test_cost_is_the_median_of_finished_trials(filled):
    for seed, (solve_s, status) in enumerate([(1.0, "ok"), (3.0, "ok"), (90.0, "ok"), (0.1, "failed")]):
        filled.append(trial("relu", seed), status=status, measurements=(measured("accuracy", 0.5),) if status == "ok" else (),
                      resources=Resources(solve_s=solve_s, params=650))  # fmt: skip

    found = row(filled.board(), "relu")

    assert (found.solve_s, found.params) == (3.0, 650)


# The same, attempt by attempt -----------------------------------------------------------------------------------------------

REFERENCE = Path(__file__).parents[1] / "registry" / "reference"
METHODS = ("one/swish", "two/swish", "d/relu", "d/elu", "d/forest", "d/norm", "d/bound")
ROLES = {"d/relu": "baseline", "d/norm": "baseline", "d/bound": "oracle"}
OWED = (("accuracy",), ("accuracy", "nll"), ("width", "error", "accuracy"), ("nll",), ())
VALUES = (0.1, 0.25, 1 / 3, 0.7, -0.0, 1e-300, 1e300, math.nan, math.inf, -math.inf, None)
STEADY = {"d/relu": 0.1, "one/swish": 0.7}  # far enough apart that one beats the other in spite of some failures
STATUS = ("ok",) * 8 + ("failed", "timeout", "oom", "diverged", "invalid", "unsupported", "unsupported", "interrupted")


def random_trial(rng: random.Random) -> Trial:
    """Few choices of everything, so that attempts meet on boards, in rows and in pairs."""
    method = rng.choice(METHODS)
    changes: dict[str, Any] = {
        "role": rng.choice(("method", ROLES.get(method, "method"))),
        "kind": rng.choice(("quality", "quality", "quality", "timing")),
        "task": rng.choice(("d/a",) * 3 + ("d/b",)),
        "task_params": rng.choice(({"fraction": 1.0},) * 3 + ({"fraction": 0.5},)),
        "budget": rng.choice(({"steps": 5.0},) * 5 + ({},)),
        "device": rng.choice(("cpu",) * 9 + ("cuda",)),
        "method_params": {"alpha": rng.choice((1, 1.0, 0.1)), "inplace": False} if method == "d/elu" else {},
        "code_digest": rng.choice(("c0de", "c0de2")),
        "root_seed": rng.choice((0,) * 9 + (1706,)),
    }
    if method in STEADY and rng.random() < 0.9:  # often on one board, so that they share seeds enough for ranks
        changes = {"role": ROLES.get(method, "method")}
    elif method == "d/forest":
        trees = rng.choice((7, 9))
        changes |= {"net": None, "train": None, "method_params": {"trees": trees, "deep": rng.choice((True, False))}}
        changes["matched"] = {
            **MATCHED,
            "where": "method.trees",
            "mismatch": trees / 100,
            "unit": rng.choice(("params", "flops")),
        }
    elif method == "two/swish" and rng.random() < 0.8:
        changes |= {"net": {"arch": "mlp", "width": 32}, "matched": MATCHED | {"to": rng.choice(("d/norm", "d/gone"))}}
    return trial(method, rng.randrange(10), **changes)


def random_attempt(rng: random.Random, number: int, log_bits: int = 1) -> Attempt:
    one, status = random_trial(rng), rng.choice(STATUS)
    steady = STEADY.get(one.method)
    status = "ok" if steady and rng.random() < 0.95 else status
    finished = status == "ok"
    owed = OWED[1] if steady else rng.choice(OWED)
    worst = rng.choice((None, 0.0, -1.0, math.nan, math.inf))
    timings = tuple(
        Timing(region, samples, samples, 1, "precise")
        for region in ("train_step", "inference") if (samples := tuple(rng.choices((1.0, 0.1, 3.0), k=rng.randrange(4))))
    )  # fmt: skip
    numbers = tuple(
        measured(name, rng.choice(VALUES) if steady is None else steady + rng.random() / 100, part)
        for name in dict.fromkeys((*owed, "width")) for part in ("validation", "test") if finished and rng.random() < 0.9
    )  # fmt: skip
    made = make_attempt(
        number, one, replace(WHERE, machine=rng.choice((MACHINE, MACHINE, MACHINE, "m-2"))), status=status,
        log=f"{rng.getrandbits(log_bits):x}", measurements=numbers, timings=timings if one.kind == "timing" else (),
        resources=Resources(solve_s=rng.choice((None, 0.1, 0.2, 0.7)), params=rng.choice((None, 10, 20)),
                            peak_rss_bytes=rng.choice((None, 5, 8)), peak_device_bytes=rng.choice((None, 3))),
    )  # fmt: skip
    return replace(made, declared=tuple(replace(measured(name, None), worst=worst) for name in owed))


def fill_at_random(path: Path, seed: int, attempts: int = 400, log_bits: int = 1) -> Registry:
    """Attempts in one file; some annotated. log_bits: how much each printed."""
    rng, registry = random.Random(seed), Registry.open(path)
    made = [random_attempt(rng, number, log_bits) for number in rng.sample(range(5 * attempts), attempts)]
    publish_folded(path, made)
    for kind in ("invalid", "expected"):
        registry.annotate(rng.sample([a.attempt_id for a in made], attempts // 25), kind, "said so", "a test")
    return registry


def publish_folded(path: Path, attempts: list[Attempt]) -> None:
    table = pa.Table.from_pylist([schema.to_row(a) for a in attempts], schema=schema.attempt_schema())
    content = schema.encode_many(table)
    (path / "folded" / content_name(content, ".parquet")).write_bytes(content)


def plain(boards: list[Board]) -> str:
    """Every bit of it but the labels, which follow from the rest; floats can be read back exactly, and NaN equals NaN."""
    return json.dumps([dataclasses.asdict(replace(board, label="")) for board in boards], sort_keys=True, indent=1)


SAMPLES = [(0, 400), (1, 400), (2, 400), (3, 400), (4, 400), (5, 400), (6, 2500)]  # seed, attempts: sparse boards, full ones


@pytest.mark.parametrize(("seed", "attempts"), SAMPLES)
def test_boards_are_those_that_one_gets_attempt_by_attempt(tmp_path, seed, attempts):
    """SQL and arrays are there for speed; what they say is what a reader of the rules would compute."""
    registry = fill_at_random(tmp_path / "registry", seed, attempts)
    some = sorted(set(registry.table({"trial_id"})["trial_id"].to_pylist()))[::2]

    asked = ((MACHINE, None, None), ("m-2", None, "d/elu"), (MACHINE, some, "d/relu"), ("m-3", None, None))
    for machine, ids, baseline in asked:
        expected = leaderboard_row_by_row.make_leaderboards(registry, ids, machine, baseline)
        assert plain(make_leaderboards(registry, ids, machine, baseline, with_ids=True)) == plain(expected)


def test_boards_out_of_an_index_are_those_that_one_gets_attempt_by_attempt(tmp_path):
    """A large registry is asked through its index, and what is newer than that is added from its own file."""
    path = tmp_path / "registry"
    registry = fill_at_random(path, 0, attempts=6000, log_bits=4000)  # 3 MB
    first = make_leaderboards(registry, None, MACHINE, with_ids=True)
    assert list((path / "index").glob("*.duckdb")), "a registry of this size has an index"
    assert plain(first) == plain(leaderboard_row_by_row.make_leaderboards(registry, None, MACHINE))

    rng = random.Random(1)
    publish_folded(path, [random_attempt(rng, 30_000 + number) for number in range(100)])
    again = Registry.open(path, create=False)

    assert plain(make_leaderboards(again, None, MACHINE, with_ids=True)) == plain(
        leaderboard_row_by_row.make_leaderboards(again, None, MACHINE)
    )
    assert plain(make_leaderboards(again, None, MACHINE, with_ids=True)) != plain(first)


def test_who_asks_for_no_ids_gets_the_same_boards_without_them(filled):
    """Only pages and --json name attempts; no number depends on it."""
    filled.add("relu", [0.1, 0.5, 0.9], role="baseline")
    filled.add("silu", [0.2, "failed", 0.9])

    whole = filled.boards()
    bare = make_leaderboards(filled.registry, None, MACHINE)

    assert all(row.attempts for board in whole for row in board.rows)
    assert bare == [replace(b, rows=tuple(replace(row, attempts=()) for row in b.rows)) for b in whole]


def test_random_registries_hold_what_is_hard(tmp_path):
    """A comparison over boards in which nothing happens would prove nothing."""
    registries = [fill_at_random(tmp_path / f"registry-{seed}", seed, attempts) for seed, attempts in SAMPLES[-3:]]
    boards = [board for registry in registries for board in make_leaderboards(registry, None, MACHINE)]
    rows = [row for board in boards for row in board.rows]

    assert len(boards) >= 30
    assert {board.metric.name for board in boards} >= {"accuracy", "nll", "error"}
    assert any(row.n_failed and row.interval for row in rows)
    assert any(row.n_failed and row.n_ok and row.interval.n < row.n_ok + row.n_failed for row in rows if row.interval)
    assert any(row.n_unsupported for row in rows)
    assert any(row.difference and row.difference.n < row.interval.n for row in rows)
    assert any(row.difference and row.difference.low is not None for row in rows)
    assert any(row.mismatch for row in rows)
    assert any(len(row.timings) == 2 and max(map(len, row.timings.values())) > 1 for row in rows)
    assert any(row.method == "two/swish" for row in rows)
    assert any("(alpha=" in row.method for row in rows)
    assert any("(fraction=" in board.task for board in boards)
    assert any(row.flops for row in rows)
    assert {row.peak_bytes for row in rows} >= {None, 3.0, 5.0}
    ranks = [row.rank for row in rows if row.rank]
    assert any(best > 1 for best, _ in ranks), "somewhere one method beats another"
    assert any(best < worst for best, worst in ranks), "somewhere two are tied"


@pytest.mark.parametrize("ids", [None, "half"])
def test_the_reference_boards_are_those_that_one_gets_attempt_by_attempt(ids):
    """The figures of the README."""
    registry = Registry.open(REFERENCE, create=False)
    rows = registry.table({"trial_id", "machine"}).to_pylist()
    chosen = None if ids is None else [row["trial_id"] for row in rows[::2]]

    boards = make_leaderboards(registry, chosen, rows[0]["machine"], with_ids=True)

    assert len(boards) > 30
    assert plain(boards) == plain(leaderboard_row_by_row.make_leaderboards(registry, chosen, rows[0]["machine"]))


def test_an_invalid_attempt_counts_for_nothing_and_the_one_before_it_is_the_latest(filled):
    """A broken machine's number must not rank; what was measured before it still does. An expected failure stays one."""
    filled.add("relu", [0.3])
    broken = filled.append(trial("relu", 0), measurements=(measured("accuracy", 0.9),))
    failed = filled.append(trial("silu", 0), status="failed")

    filled.registry.annotate([broken.attempt_id], "invalid", "the clock stood still", "a test")
    filled.registry.annotate([failed.attempt_id], "expected", "known", "a test")

    assert row(filled.board(), "relu").interval.mean == 0.3
    assert row(filled.board(), "silu").n_failed == 1

    filled.registry.annotate([broken.attempt_id], "withdrawn", "it did not", "a test")

    assert row(filled.board(), "relu").interval.mean == 0.9


# What is left out is said ----------------------------------------------------------------------------------------------------


@pytest.fixture
def annotated(filled) -> Path:
    """relu failed as expected, silu failed, tanh failed on a broken machine after it had gone well."""
    filled.add("tanh", [0.5])
    attempts = {m: filled.append(trial(m, 0), status="failed", error="boom\nValueError: no") for m in ("relu", "silu", "tanh")}
    filled.registry.annotate([attempts["relu"].attempt_id], "expected", "needs AVX\nsee the log", "a test")
    filled.registry.annotate([attempts["tanh"].attempt_id, "ab" * 16], "invalid", "throttled", "a test")
    return filled.registry.path


def test_status_tells_the_expected_failures_and_leaves_out_the_invalid_ones(annotated):
    """A list of failures is read each morning: what is known must not hide what is new."""
    answer = harness("status", "--failed", "--registry", annotated)

    assert answer.code == 0
    assert [line.split("  ", 1)[1] for line in answer.out.splitlines()] == [
        "failed      relu on digits quality 0: ValueError: no (expected: needs AVX\\nsee the log)",
        "failed      silu on digits quality 0: ValueError: no",
    ]
    assert answer.err == "1 attempt annotated as invalid left out\n"


def test_status_counts_what_an_invalid_attempt_had_hidden(annotated):
    """Without it the attempt before is the trial's latest."""
    counts = harness("status", "--registry", annotated)
    listed = harness("status", "--failed", "--json", "--registry", annotated).json

    assert [line.split() for line in counts.out.splitlines()] == [["vision", "failed", "2"], ["vision", "ok", "1"]]
    assert [(r["annotation"], r["annotation_reason"]) for r in listed] == [("expected", "needs AVX\nsee the log"), (None, None)]


def test_a_leaderboard_says_how_many_attempts_are_left_out(annotated):
    """A number that is gone must not be gone in silence."""
    answer = harness("leaderboard", "--machine", MACHINE, "--json", "--registry", annotated)

    assert {r["method"]: (r["n_ok"], r["n_failed"]) for r in answer.json["boards"][0]["rows"]}["tanh"] == (1, 0)
    assert answer.err == "1 attempt annotated as invalid left out\n"


def test_show_and_logs_tell_what_was_said_of_an_attempt(annotated):
    """Who looks at one attempt must see that it counts for nothing, and why."""
    shown = harness("show", f"{4:032x}", "--registry", annotated).json
    log = harness("logs", f"{4:032x}", "--registry", annotated)

    assert (shown["annotation"], shown["annotation_reason"]) == ("invalid", "throttled")
    assert log.err == "tanh on digits quality 0: failed (invalid: throttled)\n"


def test_damage_is_said_by_every_command_that_reads_and_stops_none(annotated):
    """The healthy records answer; what is missing is named on stderr."""
    loose = sorted((annotated / "attempts").iterdir())
    victim = next(f for f in loose if schema.decode(f.read_bytes())["attempt_id"].to_pylist() == [f"{3:032x}"])  # silu

    for command in (["status"], ["leaderboard", "--machine", MACHINE], ["show", f"{4:032x}"], ["logs", f"{4:032x}"],
                    ["query", "SELECT count(*) FROM attempts"]):  # fmt: skip
        flip_a_bit(victim)
        answer = harness(*command, "--registry", annotated)
        assert answer.code == 0
        assert f"{victim.name}: damaged" in answer.err, command
        (annotated / "quarantine" / victim.name).rename(victim)
        flip_a_bit(victim)


# Drawing ------------------------------------------------------------------------------------------------------------------


def drawn(boards: list[Board], monkeypatch: pytest.MonkeyPatch, width: int = 118) -> str:
    out = io.StringIO()
    monkeypatch.setattr(drawn_boards, "console", lambda: Console(file=out, width=width, highlight=False))
    drawn_boards.draw_leaderboards(boards)
    return out.getvalue()


def interval(mean: float, half: float | None = 0.01) -> Interval:
    return Interval(mean, None, None, 1) if half is None else Interval(mean, mean - half, mean + half, 3)


def make_row(method: str, value: Interval | None, **changes: Any) -> Row:
    made = Row(method=method, role="method", interval=value, n_ok=3, n_failed=0, n_unsupported=0, difference=None, others={},
               timings={}, solve_s=1.5, params=None, mismatch=None, ranked=True)  # fmt: skip
    return replace(made, **changes)


def make_board(*rows: Row, baseline: str = "", further: tuple[Metric, ...] = (), name: str = "accuracy") -> Board:
    shared = {"net": None, "budget": {"steps": 5.0}, "device": "cpu", "dtype": "float32", "threads": 1}
    return Board("digits", shared, Metric(name, "1", "higher"), further, baseline, rows)


def test_a_label_names_what_tells_boards_of_one_task_and_net_apart():
    """Six boards called "digits, mlp" send the reader to the small print; what all of them share tells nothing."""
    mlp = {"arch": "mlp", "width": 128, "depth": 2}
    shared = [
        {"net": mlp, "train": {"batch": 64, "lr": 0.02}},
        {"net": {**mlp, "depth": 8}, "train": {"batch": 64, "lr": 0.02}},
        {"net": {**mlp, "depth": 8}, "train": {"batch": 64, "lr": 0.001}},
        {"net": {"arch": "cnn", "width": 16}, "train": {"batch": 64, "lr": 0.02}},
        {"net": None, "train": None},
    ]
    boards = with_labels([replace(make_board(), shared={**make_board().shared, **one}) for one in shared])

    assert [board.label for board in boards] == [
        "digits, mlp, depth 2", "digits, mlp, depth 8, lr 0.02", "digits, mlp, depth 8, lr 0.001", "digits, cnn", "digits",
    ]  # fmt: skip


@pytest.mark.parametrize("value", [None, interval(0.5, None), interval(0.5, 0.0), interval(math.nan, math.nan),
                                   interval(math.inf, math.nan), interval(1e300, 1e299), interval(-1e-30, 1e-31),
                                   interval(0.0, math.inf)])  # fmt: skip
def test_any_interval_can_be_drawn(value, monkeypatch):
    """A leaderboard is shown at the end of hours of work: no number may break it, and none may take a whole line."""
    board = make_board(make_row("odd", value, difference=value), make_row("relu", interval(0.5)), baseline="relu")

    text = drawn([board, make_board(make_row("odd", value))], monkeypatch)

    assert text.count("odd") == 2
    assert max(map(len, text.splitlines())) <= 118


def test_no_boards_are_said(monkeypatch):
    assert "no attempts to rank yet" in drawn([], monkeypatch)
    assert drawn([make_board()], monkeypatch).startswith("digits")


def test_values_that_overflow_when_squared_make_a_board(filled, monkeypatch):
    """What diverged in float64 may be finite and huge."""
    filled.add("relu", [{"nll": 1e300}, {"nll": 3.0}], owed=("nll",))

    text = drawn([filled.board()], monkeypatch)

    assert "5e+299 ±6.4e+300" in text


def test_names_of_plugins_are_printed_as_they_are(filled, monkeypatch):
    """A name is text: rich would take [red] for a colour, and an unbalanced [/] for an error."""
    filled.add("dist/[red]x", [0.5, 0.6])
    filled.add("dist/:boom:", [0.5, 0.6], role="baseline")
    odd = make_board(make_row("[red]x[/red]", None, role="baseline"), baseline="[/red]", name="[b]metric[/]")

    text = drawn([filled.board(), odd], monkeypatch)

    for name in (" [red]x ", " :boom:* ", "- :boom:", "[red]x[/red]*", "- [/red]", "[b]metric[/]"):
        assert name in text


def test_a_plan_prints_names_as_they_are(monkeypatch):
    """The same in `harness plan`."""
    out = io.StringIO()
    monkeypatch.setattr(drawing, "console", lambda: Console(file=out, width=118, highlight=False))
    one = trial("dist/[red]x", 0, task="dist/[b]", net={"arch": "mlp", "width": 8, "depth": 1})
    plan = Plan("s", (Planned(one, "missing"),), (Note("data [/] not found", "fetch it", 2),))

    drawing.draw_plan(plan, [one])

    assert "[b]" in out.getvalue()
    assert "[red]x" in out.getvalue()
    assert "skipped: 2 trials: data [/] not found; fetch it" in out.getvalue()


def test_the_middle_of_an_even_number_of_processes_is_their_median(monkeypatch, capsys):
    """The upper one of two is no middle; table and CSV agree."""
    board = make_board(make_row("relu", None, timings={"step": (0.003, 0.001)}))

    assert "2 (1-3)" in drawn([board], monkeypatch)
    drawn_boards.write_csv([replace(board, shared=dict.fromkeys(SHARED))], [])
    [line] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert line["step_s"] == "0.002"


def test_a_narrow_board_drops_further_metrics_before_it_cuts_a_number(monkeypatch):
    """A number without its last digits is worse than none; what is not shown is named."""
    further = tuple(Metric(f"metric_number_{i}", "1", "higher") for i in range(5))
    others = {m.name: 0.123 for m in further}
    row = make_row("relu", interval(0.5, 0.012), difference=interval(0.25, 0.034), others=others, params=123456)
    board = make_board(row, further=further, baseline="elu")

    wide, narrow = drawn([board], monkeypatch, 160), drawn([board], monkeypatch, 80)

    assert "not shown: metric_number_3, metric_number_4 (--json has all)" in wide
    assert "●" in wide
    for number in ("0.500 ±0.012", "+0.250 ±0.034", "123,456", "1.5", "3/0"):
        assert number in narrow
    assert "●" not in narrow
    assert "…" not in narrow
    assert all(m.name in narrow.replace("\n", " ") for m in further)


def test_a_name_that_is_too_long_is_folded_and_numbers_stay_whole(monkeypatch):
    """Six settings in brackets take a line of their own before a digit is lost."""
    name = f"ei-snn({', '.join(f'setting_{i}=some-value' for i in range(6))})"
    row = make_row(name, interval(0.5, 0.012), difference=interval(0.25, 0.034), params=123456)

    narrow = drawn([make_board(row, baseline="elu")], monkeypatch, 80)

    assert "…" not in narrow
    assert all(text in narrow for text in ("0.500 ±0.012", "+0.250 ±0.034", "setting_5=some-value"))


BY_FLOPS = {"unit": "flops", "to": "d/relu", "where": "net.width", "value": 60, "counted": 0.995, "target_counted": 1.0}


def test_roles_failures_and_mismatch_are_explained_below(monkeypatch):
    """Marks and counts mean nothing without their words."""
    board = make_board(
        make_row("relu", interval(0.5), role="baseline"), make_row("best", interval(0.9), role="oracle", ranked=False),
        make_row("crash", interval(0.1), n_ok=1, n_failed=2, mismatch=-0.04, match=BY_FLOPS),
        make_row("norm", None, n_ok=0, n_unsupported=3, mismatch=0.001, match=BY_FLOPS),
        baseline="relu",
    )  # fmt: skip

    text = drawn([board], monkeypatch)

    assert "relu*" in text
    assert "* baseline, § oracle (scored, not ranked)" in text
    assert "failed attempts count as the metric's declared worst" in text
    assert "unsupported here: norm" in text
    assert "matched to relu by flops (99.5% of the work counted by formulas): crash -4.00%, norm +0.10%" in text
    assert "3 seeds: intervals are indicative" in text


def test_the_json_of_a_board_is_json(filled):
    """Machines read it: no NaN, no Infinity, every row."""
    filled.add("relu", [0.5, "failed"], role="baseline")
    filled.add("silu", [0.7])

    answer = harness("leaderboard", "--json", "--registry", filled.registry.path, "--machine", MACHINE)

    [board] = answer.json["boards"]
    assert answer.json["pools"] == []
    assert [(r["method"], r["n_ok"], r["n_failed"]) for r in board["rows"]] == [("silu", 1, 0), ("relu", 1, 1)]
    assert board["rows"][0]["interval"] == {"mean": 0.7, "low": None, "high": None, "n": 1}
    assert board["baseline"] == "relu"
    assert json.loads(answer.out) == answer.json


def test_all_formats_say_the_same_numbers(filled):
    """A table in a paper, a spreadsheet and a script must agree."""
    filled.add("relu", [0.5, 0.6, "failed"], role="baseline")
    filled.add("silu", [0.8, 0.9, 0.85])
    where = ("--registry", filled.registry.path, "--machine", MACHINE)

    [board] = harness("leaderboard", "--json", *where).json["boards"]
    listed = list(csv.DictReader(io.StringIO(harness("leaderboard", "--csv", *where).out)))
    markdown = harness("leaderboard", "--markdown", *where).out
    table = harness("leaderboard", *where).out

    assert [row["method"] for row in listed] == [row["method"] for row in board["rows"]]
    for row, line in zip(board["rows"], listed, strict=True):
        assert [float(line[name]) for name in ("mean", "low", "high", "n")] == list(row["interval"].values())
        assert [int(line["rank_best"]), int(line["rank_worst"])] == row["rank"]
        assert [int(line["n_ok"]), int(line["n_failed"])] == [row["n_ok"], row["n_failed"]]
        shown = interval_text(*list(row["interval"].values())[:3])
        assert shown in markdown
        assert shown in table


def test_a_terminal_without_box_characters_gets_letters(filled):
    """A log of CI is often plain ASCII: it must neither end the command nor lose a number."""
    filled.add("relu", [0.5, 0.6, 0.7], role="baseline")
    filled.add("dist/é", [0.5, 0.6, 0.8])

    ended = harness_process(
        "leaderboard", "--registry", str(filled.registry.path), "--machine", MACHINE, cwd=filled.registry.path.parent,
        PYTHONIOENCODING="ascii",
    )  # fmt: skip

    assert ended.code == 0, ended.err
    assert ended.out.isascii()
    for text in ("0.63 +/-0.38", "-----o-----", "accuracy ^", "\\xe9"):
        assert text in ended.out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--json", "--csv"], 2, "--json and --csv: write one of them"),
        (["--method", "nothing*"], 4, "no board fits --task, --method and --device"),
        (["--task", "digits", "--device", "cuda"], 4, "no board fits"),
    ],
)
def test_what_cannot_be_shown_is_refused(filled, words, code, said):
    filled.add("relu", [0.5])

    answer = harness("leaderboard", *words, "--registry", filled.registry.path, "--machine", MACHINE)

    assert (answer.code, said in answer.err) == (code, True), answer.err
