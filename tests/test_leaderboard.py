"""Boards from sample attempts in a real registry: who is compared with whom, what counts, what is left out; and drawing."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from invoking import harness
from registry_samples import MACHINE, WHERE, make_attempt, make_trial
from rich.console import Console

from harness.cli import drawing
from harness.leaderboard import Board, Metric, Row, make_leaderboards
from harness.plan import Note, Plan, Planned
from harness.records import Attempt, Measurement, Provenance, Resources, Timing, Trial
from harness.registry import Registry
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

    def boards(self, baseline: str | None = None, trial_ids: Iterable[str] | None = None) -> list[Board]:
        return make_leaderboards(self.registry, trial_ids, MACHINE, baseline)

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


# Drawing ------------------------------------------------------------------------------------------------------------------


def drawn(boards: list[Board], monkeypatch: pytest.MonkeyPatch, width: int = 118) -> str:
    out = io.StringIO()
    monkeypatch.setattr(drawing, "console", lambda: Console(file=out, width=width, highlight=False))
    drawing.draw_leaderboards(boards, as_json=False)
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


def test_roles_failures_and_mismatch_are_explained_below(monkeypatch):
    """Marks and counts mean nothing without their words."""
    board = make_board(
        make_row("relu", interval(0.5), role="baseline"), make_row("best", interval(0.9), role="oracle", ranked=False),
        make_row("crash", interval(0.1), n_ok=1, n_failed=2, mismatch=-0.04), make_row("norm", None, n_ok=0, n_unsupported=3),
        baseline="relu",
    )  # fmt: skip

    text = drawn([board], monkeypatch)

    assert "relu*" in text
    assert "* baseline, § oracle (scored, not ranked)" in text
    assert "failed attempts count as the metric's declared worst" in text
    assert "unsupported here: norm" in text
    assert "largest mismatch -4.00% (crash)" in text
    assert "3 seeds: intervals are indicative" in text


def test_the_json_of_a_board_is_json(filled):
    """Machines read it: no NaN, no Infinity, every row."""
    filled.add("relu", [0.5, "failed"], role="baseline")
    filled.add("silu", [0.7])

    answer = harness("leaderboard", "--json", "--registry", filled.registry.path, "--machine", MACHINE)

    [board] = answer.json
    assert [(r["method"], r["n_ok"], r["n_failed"]) for r in board["rows"]] == [("silu", 1, 0), ("relu", 1, 1)]
    assert board["rows"][0]["interval"] == {"mean": 0.7, "low": None, "high": None, "n": 1}
    assert board["baseline"] == "relu"
    assert json.loads(answer.out) == answer.json
