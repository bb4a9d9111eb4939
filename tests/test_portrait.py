"""One method: where it stands on each board, its curve and history, its failures, and the pictures of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from invoking import harness, harness_process
from registry_samples import MACHINE, WHERE
from test_leaderboard import Filled, measured, trial

from harness.claims.verdicts import Verdict
from harness.cli.tables import BARS, bar, spark
from harness.errors import HarnessError
from harness.portrait import make_portrait
from harness.records import CurvePoint
from harness.stats import Interval


@pytest.fixture
def filled(tmp_path):
    return Filled(tmp_path / "registry")


def portrait(filled, name, **options):
    return make_portrait(filled.registry, name, MACHINE, **options)


def test_a_method_stands_on_each_board_as_the_leaderboard_has_it(filled):
    """The same row, with the rank among all and the scale of all."""
    for task in ("d/one", "d/two"):
        filled.add("relu", [0.1, 0.12, 0.11, 0.12, 0.1], task=task, role="baseline")
        filled.add("silu", [0.8, 0.83, 0.81, 0.81, 0.8], task=task)

    found = portrait(filled, "silu")

    assert (found.method, [p.task for p in found.places]) == ("paper-harness/silu", ["one", "two"])
    board = next(b for b in filled.boards() if b.task == "one")
    place = found.places[0]
    assert place.row in board.rows
    assert (place.row.rank, place.of, place.baseline) == ((1, 1), 2, "relu")
    assert place.scale[0] == min(r.interval.low for r in board.rows)
    assert place.scale[1] == max(r.interval.high for r in board.rows)
    assert place.rerun == (f"harness run vision --method silu --force --registry {filled.registry.path}",)
    assert [(m["quantity"], m["n"]) for m in found.metrics] == [("accuracy", 5), ("accuracy", 5)]


def test_the_history_runs_along_the_series_night_by_night(filled):
    """Over code and commits; another budget is another series. Failures are counted, and are in no mean."""
    for night, values in enumerate(([0.1, 0.3], [0.2, "failed"], ["failed", "oom"], [0.5, 0.7])):
        where = replace(WHERE, invocation=f"inv-{night}", git_commit=str(night) * 40)
        filled.add("silu", values, where=where, code_digest=f"c{night}")
    filled.add("silu", [0.9], budget={"steps": 1.0})
    filled.add("relu", [0.9, 0.9])

    place = next(p for p in portrait(filled, "silu").places if p.shared["budget"] == {"samples_seen": 30000})

    assert [n.mean for n in place.history] == [pytest.approx(0.2), pytest.approx(0.2), None, pytest.approx(0.6)]
    assert [(n.n_ok, n.n_failed) for n in place.history] == [(2, 0), (1, 1), (0, 2), (2, 0)]
    assert [n.git_commit[0] for n in place.history] == ["0", "1", "2", "3"]


def test_the_curve_is_the_mean_over_seeds_by_the_tracks_clock(filled):
    """At the k-th offer all seeds have spent as much; the wall's clock is the last resort."""
    for seed, lift in enumerate((0.0, 0.2)):
        points = [
            CurvePoint("accuracy", part, "1", {"wall_s": float(k), "steps": 10.0 * k}, value)
            for k in (1, 2, 3) for part, value in (("test", 0.1 * k + lift), ("validation", 0.0))
        ]  # fmt: skip
        filled.append(trial("silu", seed), measurements=(measured("accuracy", 0.3 + lift),), curve=tuple(points))

    curve = portrait(filled, "silu").places[0].curve

    assert (curve.clock, curve.at) == ("steps", (10.0, 20.0, 30.0))
    assert curve.mean == pytest.approx((0.2, 0.3, 0.4))
    assert portrait(filled, "silu", curves=False).places[0].curve is None


def test_failures_are_named_with_their_error(filled):
    filled.add("silu", [0.5])
    failed = filled.append(trial("silu", 1), status="oom", error="a\nMemoryError: no more")

    (failure,) = portrait(filled, "silu").places[0].failures

    assert (failure.attempt_id, failure.seed, failure.status, failure.error) == (
        failed.attempt_id,
        1,
        "oom",
        "MemoryError: no more",
    )


def test_the_papers_claims_are_judged_once(filled):
    """By whoever is passed in: what a portrait knows of papers is their name."""
    filled.add("silu", [0.5], paper="swishes")
    verdict = Verdict("swishes.good", "swishes", "it is good", "supported", "it is")
    asked = []

    found = portrait(filled, "silu", judge=lambda paper: asked.append(paper) or [verdict])

    assert (found.paper, found.verdicts, asked) == ("swishes", (verdict,), ["swishes"])


def test_a_name_of_two_distributions_is_refused_and_an_unknown_one_is_none(filled):
    filled.add("one/swish", [0.5])
    filled.add("two/swish", [0.5])

    with pytest.raises(HarnessError, match="write one of them: one/swish, two/swish"):
        portrait(filled, "swish")
    assert portrait(filled, "two/swish").method == "two/swish"
    assert portrait(filled, "nothing") is None


# Pictures ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""), ([1.0], ""), ([1.0, 1.0], "▅▅"), ([0.0, 1.0], "▁█"), ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], BARS),
        ([math.nan, 0.0, math.inf, 1.0], "▁█"), ([-1e308, 1e308], "▅▅"), ([0.0, 0.0, 4.0, 4.0] * 1, "▁▁██"),
    ],
)  # fmt: skip
def test_a_history_is_drawn_from_its_least_to_its_greatest(values, drawn):
    assert spark(values) == drawn


def test_a_long_history_is_drawn_in_means(monkeypatch):
    """Every value counts: a sample of them could miss the night that broke."""
    assert spark([0.0] * 500 + [7.0] * 500, cells=4) == "▁▁██"
    assert spark(list(range(1000)), cells=8) == BARS


def test_a_mark_shows_where_zero_is():
    interval = Interval(0.5, 0.25, 0.75, 3)

    assert bar(interval, -1.0, 1.0, cells=9, mark=0.0) == "    ┆├●┤ "
    assert bar(Interval(0.5, 0.0, 1.0, 3), 0.0, 1.0, cells=5, mark=0.0) == "├─●─┤"


def test_show_draws_a_method_and_says_how_to_run_it_again(filled):
    for night in range(3):
        where = replace(WHERE, invocation=f"inv-{night}")
        filled.add("relu", [0.1, 0.2], role="baseline", where=where)
        filled.add("silu", [0.5 + night / 10, 0.6], where=where)
    filled.add("silu", ["failed"], task="d/hard")
    where = ("--registry", str(filled.registry.path), "--machine", MACHINE)

    told = harness("show", "silu", *where)
    plain = harness_process("show", "silu", *where, cwd=filled.registry.path.parent, PYTHONIOENCODING="ascii")
    whole = harness("show", "silu", "--json", *where).json

    assert told.code == plain.code == 0, told.err + plain.err
    for text in (
        "paper-harness/silu",
        "├",
        "▁",
        "3 invocations",
        "failed: hard (mlp), seed 0",
        "run again: harness run vision",
    ):
        assert text in told.out
    assert plain.out.isascii()
    assert len(whole["places"][0]["history"]) == 3 or len(whole["places"][1]["history"]) == 3


def test_a_narrow_terminal_keeps_digits_and_drops_pictures(filled, monkeypatch):
    """A cut number is worse than none; what is not shown is named."""
    import io

    from rich.console import Console

    from harness.cli import tables
    from harness.cli.show import draw_portrait

    filled.add("relu", [0.1, 0.2], role="baseline")
    filled.add("silu", [0.5, 0.6])
    out = io.StringIO()
    monkeypatch.setattr(tables, "console", lambda: Console(file=out, width=50, highlight=False))

    draw_portrait(portrait(filled, "silu"))

    assert "0.55 ±0.64" in out.getvalue()
    assert "├" not in out.getvalue()
    assert "not shown: " in out.getvalue()


def test_a_method_is_shown_where_it_ran_and_an_attempt_wherever(filled):
    """Of two other machines the user chooses; an id needs no choice."""
    filled.add("silu", [0.5], where=replace(WHERE, machine="m-7"))
    filled.add("relu", [0.5], where=replace(WHERE, machine="m-8"))
    first = f"{1:032x}"

    alone = harness("show", "silu", "--registry", filled.registry.path)
    attempt = harness("show", first, "--registry", filled.registry.path)
    filled.add("silu", [0.6], where=replace(WHERE, machine="m-8"))
    several = harness("show", "silu", "--registry", filled.registry.path)

    assert (alone.code, attempt.code) == (0, 0)
    assert "records of machine m-7; none of this one" in alone.err
    assert attempt.json["attempt_id"] == first
    assert (several.code, "choose one with --machine: m-7, m-8" in several.err) == (2, True)


def test_a_method_whose_records_declare_nothing_is_listed(filled):
    """Imported records stand on no board; what they measured is still told."""
    filled.add("silu", [0.5, 0.7], owed=())

    told = harness("show", "silu", "--registry", filled.registry.path)

    assert told.code == 0
    assert "mean 0.6 1" in told.out
