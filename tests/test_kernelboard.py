"""Kernel boards and the view under them: who is ranked, what is labelled, what a reader is told to doubt."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from kernel_samples import kernel_attempt, kernel_trial
from registry_samples import MACHINE

from harness.cli.compare import compare_command
from harness.cli.kernels import seconds
from harness.kernelboard import Payoff, make_kernel_boards, payoffs
from harness.leaderboard import make_leaderboards
from harness.records import Measurement
from harness.registry import Registry


@pytest.fixture
def registry(tmp_path):
    return Registry.open(tmp_path / "registry")


def add(registry, number, implementation, seconds, seed=0, **more):
    trial = kernel_trial(implementation=implementation, seed=seed, **more.pop("trial", {}))
    registry.append(kernel_attempt(number, trial, {"forward": seconds, "forward_backward": 3 * seconds}, **more))


def test_the_figure_is_the_median_of_the_processes_with_their_range(registry):
    """Three processes with other memory layouts: the middle one, and how far they are apart."""
    for number, time in enumerate((4e-6, 2e-6, 3e-6)):
        add(registry, number, "ours", time, seed=number)

    ((row,),) = [board.rows for board in make_kernel_boards(registry, MACHINE)]
    figure = row.figures["forward"]
    assert (figure.lowest_s, figure.time_s, figure.highest_s) == (2e-6, 3e-6, 4e-6)
    assert figure.floor_multiple == pytest.approx(3)
    assert (row.case, row.error, row.n_ok, row.n_failed) == ("10k", 1e-7, 3, 0)


def test_what_is_wrong_has_no_rank_and_stands_last(registry):
    """Fast and wrong is not fast."""
    add(registry, 0, "eager", 9e-6)
    add(registry, 1, "ours", 1e-6, status="failed", measurements=(), timings=(), error="check repeated: another result")

    (board,) = make_kernel_boards(registry, MACHINE)
    assert [(r.implementation, r.n_failed, dict(r.figures) == {}) for r in board.rows] == [
        ("eager", 0, False),
        ("ours", 1, True),
    ]
    assert board.rows[0].figures["forward"].rank == 1


def test_what_all_cases_share_is_said_once_and_an_empty_copy_has_no_rate(registry):
    """Eight channels in every row stand above the table; a call that copies a few bytes tells nothing of bandwidth."""
    slow = Measurement("copy_rate", "ceiling", "B/s", "higher", 4e6)
    add(registry, 0, "ours", 1e-6, trial={"case": {"elements": 10_000, "channels": 8, "side": 1}})
    add(registry, 1, "ours", 1e-6, trial={"case": {"elements": 1, "channels": 8, "side": 2}}, more=(slow,))

    (board,) = make_kernel_boards(registry, MACHINE)
    assert board.case == {"channels": 8}
    assert [row.case for row in board.rows] == ["1 side=2", "10k side=1"]
    assert board.copy_rates == {"10k side=1": 2e10}


def test_a_fallback_is_labelled_and_not_ranked(registry):
    """Without a compiler `ours` is eager code: its time says nothing of ours."""
    add(registry, 0, "eager", 9e-6)
    add(registry, 1, "ours", 8e-6, more=(Measurement("fallback", "check", "1", "neither", 1.0),))

    eager, ours = make_kernel_boards(registry, MACHINE)[0].rows  # the quicker one stands last
    assert (ours.fallback, ours.figures["forward"].rank) == (True, None)
    assert (eager.fallback, eager.figures["forward"].rank) == (False, 1)
    assert "ours (fallback, not ranked)" in compare(registry, "--machine", MACHINE).output


def test_compiling_pays_after_its_wait_over_what_it_saves(registry):
    """Eager takes 30 us a step, compiled 6; a first call of 2.4 s is worth 100,000 steps. Slower than eager: never."""
    wait = Measurement("first_call", "compile", "s", "lower", 2.4)
    slow = {"case": {"elements": 1, "layout": "contiguous"}}
    for number, (name, time, more, trial) in enumerate((
        ("eager", 1e-5, (), {}), ("compiled", 2e-6, (wait,), {}), ("eager", 1e-6, (), slow), ("compiled", 2e-6, (wait,), slow),
    )):  # fmt: skip
        add(registry, number, name, time, more=more, trial=dict(trial))

    (board,) = make_kernel_boards(registry, MACHINE)
    assert payoffs(board) == [Payoff("1", 2.4, None), Payoff("10k", 2.4, 100_000)]


def test_kernels_are_no_row_of_a_leaderboard(registry):
    """They have no metric of a task, and their seconds are compared by case."""
    add(registry, 0, "ours", 1e-6)

    assert make_leaderboards(registry, None, MACHINE) == []
    assert registry.query("SELECT * FROM v_leaderboard").num_rows == 0


def test_only_the_series_that_are_asked_for(registry):
    add(registry, 0, "ours", 1e-6)
    add(registry, 1, "ours", 1e-6, trial={"case": {"elements": 0, "layout": "strided"}})

    (board,) = make_kernel_boards(registry, MACHINE, [kernel_trial(case={"elements": 0, "layout": "strided"})])
    assert [row.case for row in board.rows] == ["0 strided"]


def test_a_records_case_may_be_anything(registry):
    """A registry may be merged from strangers: what is no case is shown as it stands, and hides nothing."""
    add(registry, 0, "ours", 1e-6)
    add(registry, 1, "ours", 1e-6, trial={"case": {"elements": "<b>many\x1b[31m", "layout": [1]}})

    (board,) = make_kernel_boards(registry, MACHINE)
    assert {row.case for row in board.rows} == {"10k", '{"elements":"<b>many\\u001b[31m","layout":[1]}'}


# The command ------------------------------------------------------------------------------------------------------------


def compare(registry, *arguments):
    return CliRunner().invoke(compare_command, [*arguments, "--kernels", "--registry", str(registry.path)])


def test_side_by_side_shows_multiples_of_the_floor_and_marks_what_is_doubtful(registry):
    add(registry, 0, "eager", 9e-6)
    add(registry, 1, "ours", 1e-6, more=(Measurement("contended", "forward", "1", "neither", 1.0),))

    shown = compare(registry, "--machine", MACHINE)

    assert shown.exit_code == 0, shown.output
    assert "1 us 1.00x !" in shown.output
    assert "9 us 9.00x" in shown.output
    assert "harness run kernels --force -t bump" in shown.output


def test_markdown_is_one_table_a_kernel(registry):
    share = Measurement("roofline_share", "forward_backward", "1", "higher", 0.043)
    add(registry, 0, "eager", 9e-6, more=(share,))

    shown = compare(registry, "--machine", MACHINE, "--markdown")

    assert "| case | implementation | forward | forward+backward | roofline | extra B | error | ok/fail |" in shown.output
    assert "| 10k | eager | 9 us 9.00x | 27 us 27.00x | 4 % |" in shown.output


def test_two_implementations_are_compared_over_processes(registry):
    for seed, factor in enumerate((0.99, 1.0, 1.01)):
        add(registry, 2 * seed, "eager", 4e-6 * factor, seed=seed)
        add(registry, 2 * seed + 1, "ours", 2e-6 * factor, seed=seed)

    told = json.loads(compare(registry, "eager", "ours", "--json").output)

    assert {r["verdict"] for r in told["ratios"]} == {"faster"}
    assert all(r["ratio"] == pytest.approx(0.5) and r["low"] < 0.5 < r["high"] for r in told["ratios"])
    assert told["differs"] == []


def test_an_unknown_side_is_answered_with_what_there_is(registry):
    add(registry, 0, "eager", 4e-6)

    shown = compare(registry, "eager", "hours")

    assert "no timed kernels of 'hours'" in str(shown.exception)
    assert "implementations eager" in str(shown.exception)


@pytest.mark.parametrize(
    ("value", "text"), [(2.0, "2 s"), (7.21e-3, "7.21 ms"), (1e-6, "1 us"), (3e-10, "0.3 ns"), (0.0, "0 ns")]
)
def test_seconds_have_the_unit_that_people_read(value, text):
    assert seconds(value) == text
