"""From the registry to histories: what makes a night's number, and which nights belong together."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from registry_samples import MACHINE, make_trial
from regress_samples import BEGAN, attempt, commit_of, kernel_night, kernel_trial, nights, quality_night, registry_of

from harness.records import Measurement
from harness.regress import read_histories


def test_a_nights_time_is_the_median_over_its_processes_by_their_own_clock(tmp_path):
    """One CPU thread: seconds in which another process had the core are not its own."""
    registry = registry_of(tmp_path / "r", nights(2, lambda n: kernel_night(n, 1e-3 * (n + 1))))

    (found,) = read_histories(registry, machine=MACHINE)

    assert found.values == pytest.approx([1e-3, 2e-3])
    assert found.reading.aspect == "time"
    assert [p.commit for p in found.points] == [commit_of(0), commit_of(1)]
    assert found.points[0].by_seed == pytest.approx({0: 0.99e-3, 1: 1e-3, 2: 1.01e-3})
    assert found.label == "crrelu/ours [1M] cpu forward"


def test_several_threads_are_timed_by_the_wall(tmp_path):
    """The process's time adds up over its threads, so it does not fall when there are more of them."""
    registry = registry_of(tmp_path / "r", kernel_night(0, 1e-3, threads=2))

    (found,) = read_histories(registry, machine=MACHINE)

    assert found.values == pytest.approx([2e-3])


def test_the_copy_beside_a_kernel_is_no_history(tmp_path):
    """It is the machine's pace, not the code's."""
    registry = registry_of(tmp_path / "r", kernel_night(0, 1e-3, ("forward", "copy", "copy_cold")))

    assert [h.reading.quantity for h in read_histories(registry, machine=MACHINE)] == ["forward"]


def test_quality_is_kept_seed_by_seed_and_memory_beside_it(tmp_path):
    """Nights are compared seed by seed; what a trial's process took in memory is watched too."""
    registry = registry_of(tmp_path / "r", quality_night(0, [0.9, 0.8, 0.7]))

    found = {h.reading.aspect: h for h in read_histories(registry, machine=MACHINE)}

    assert found["quality"].points[0].by_seed == {0: 0.9, 1: 0.8, 2: 0.7}
    assert found["quality"].values == pytest.approx([0.8])
    assert found["memory"].values == [300_000_000]


def test_a_seed_that_failed_counts_as_the_metrics_worst(tmp_path):
    """A trial that diverges is worse than any that does not; leaving it out would raise the mean."""
    declared = (Measurement("accuracy", "test", "1", "higher", None, 0.1),)
    diverged = replace(attempt(0, make_trial("relu", 1), "vision", status="diverged"), declared=declared)
    registry = registry_of(tmp_path / "r", [quality_night(0, [0.9])[0], diverged])

    (found,) = (h for h in read_histories(registry, machine=MACHINE) if h.reading.aspect == "quality")

    assert found.values == pytest.approx([0.5])


def test_a_number_that_is_not_finite_is_left_out(tmp_path):
    """asv's detection would eat all memory on an infinity."""
    attempts = [a for n, accuracy in enumerate([0.9, float("inf"), float("nan")]) for a in quality_night(n, [accuracy])]
    registry = registry_of(tmp_path / "r", attempts)

    (found,) = (h for h in read_histories(registry, machine=MACHINE) if h.reading.aspect == "quality")

    assert found.values == [0.9]


def test_what_is_annotated_as_invalid_is_no_night(tmp_path):
    """A throttled machine must neither alarm nor spoil the nights that come."""
    attempts = nights(3, lambda n: kernel_night(n, 1e-3 * (n + 1)))
    registry_of(tmp_path / "r", attempts).annotate([a.attempt_id for a in attempts[3:6]], "invalid", "throttled", "me")

    (found,) = read_histories(registry_of(tmp_path / "r", []), machine=MACHINE)

    assert found.values == pytest.approx([1e-3, 3e-3])


def test_an_expected_change_starts_a_new_history(tmp_path):
    """Who accepts a slower, safer kernel says so once; the nights before it no longer count."""
    attempts = nights(4, lambda n: kernel_night(n, 1e-3 if n < 2 else 2e-3))
    registry_of(tmp_path / "r", attempts).annotate([attempts[6].attempt_id], "expected", "now exact", "me")

    (found,) = read_histories(registry_of(tmp_path / "r", []), machine=MACHINE)

    assert [p.commit for p in found.points] == [commit_of(2), commit_of(3)]


@pytest.mark.parametrize(
    "change",
    [{"torch_version": "2.14.0"}, {"dtype": "float64"}, {"threads": 2}, {"device": "cuda"}, {"method": "d/crrelu/eager"},
     {"case": {"elements": 10, "layout": "contiguous"}}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_numbers_that_do_not_agree_in_it_are_not_of_one_history(tmp_path, change):
    """A new torch may be slower: that is no regression of ours, and no night to compare with."""
    registry = registry_of(tmp_path / "r", [*kernel_night(0, 1e-3), *kernel_night(1, 2e-3, **change)])

    assert [len(h.points) for h in read_histories(registry, machine=MACHINE)] == [1, 1]


def test_machine_suite_and_day_choose_the_nights(tmp_path):
    """Each machine has its own pace; `--since` leaves the past alone."""
    other = [replace(a, attempt_id=f"{a.attempt_id[:-1]}x", provenance=replace(a.provenance, machine="m-2"))
             for a in kernel_night(1, 9.0)]  # fmt: skip
    registry = registry_of(tmp_path / "r", [*nights(3, lambda n: kernel_night(n, 1e-3)), *other, *quality_night(0, [0.9])])

    chosen = read_histories(registry, ["kernels"], MACHINE, BEGAN + timedelta(days=1))

    assert [(h.suite, len(h.points)) for h in chosen] == [("kernels", 2)]


def test_a_night_in_which_all_attempts_fail_breaks_the_history(tmp_path):
    """A kernel that is wrong now has no time tonight; silence about it would be the worst of answers."""
    failed = [attempt(1, kernel_trial(p), status="failed", error="WrongResult: mutates_inputs") for p in range(3)]
    registry = registry_of(tmp_path / "r", [*kernel_night(0, 1e-3), *failed])

    (found,) = read_histories(registry, machine=MACHINE)

    assert found.broken == "failed: WrongResult: mutates_inputs"
    assert len(found.points) == 1


def test_a_night_in_which_some_attempts_fail_does_not(tmp_path):
    """A timeout on a busy machine is an outcome of `harness run`, not a step in a history."""
    failed = attempt(1, kernel_trial(0), status="timeout")
    registry = registry_of(tmp_path / "r", [*kernel_night(0, 1e-3), failed, *kernel_night(1, 1e-3)[1:]])

    (found,) = read_histories(registry, machine=MACHINE)

    assert found.broken == ""
    assert len(found.points) == 2


def test_a_failure_that_is_known_breaks_nothing(tmp_path):
    """`annotate --expected` says that gates need not close for it."""
    failed = [attempt(1, kernel_trial(p), status="failed", error="known") for p in range(3)]
    registry_of(tmp_path / "r", [*kernel_night(0, 1e-3), *failed]).annotate([failed[0].attempt_id], "expected", "known", "me")

    assert all(not h.broken for h in read_histories(registry_of(tmp_path / "r", []), machine=MACHINE))
